/// What work costs on a device: learned from how long earlier submits took, in this process and in those before it.
///
/// A roofline: a dispatch takes the longer of its bytes' and its operations' time. Each finished part of a command corrects
/// the rate that dominated it.
#ifndef GPU_RATES_H
#define GPU_RATES_H

#include "gpu/command.h"

#include <pthread.h>

typedef struct gpu_rates {
    pthread_mutex_t mutex; // made and destroyed with the device
    double ns_per_byte, ns_per_flop;
    double kept_ns_per_byte, kept_ns_per_flop; // as the process began with them
    uint32_t byte_lessons, flop_lessons;       // since then
    // Without timestamps: what was submitted since the device was last known to be idle, for wall-clock learning.
    gpu_work waiting;
    int64_t busy_since_ns;
} gpu_rates;

/// What a dispatch is expected to take, and the part of its work that decides it: bytes or operations, the other one zero.
typedef struct gpu_estimate {
    double ns;
    gpu_work bound;
} gpu_estimate;

/// Rates that were kept for the device in its cache folder, else sane ones for its type.
void gpu_rates_open(zs_device *device);
/// Keeps what has been learned, where that differs enough from what was known: plans made by it should not turn with every start.
void gpu_rates_keep(zs_device *device);
gpu_estimate gpu_rates_estimate(gpu_rates *rates, gpu_work work);
/// bound: sums over the dispatches that were measured. It is held against what they would be expected to take now, since a command that is
/// replayed teaches again and again.
void gpu_rates_learn(gpu_rates *rates, gpu_work bound, double measured_ns);
/// For devices without timestamps: work was submitted …
void gpu_rates_submitted(gpu_rates *rates, gpu_work bound, int64_t now_ns);
/// … and all of it is done.
void gpu_rates_idle(gpu_rates *rates, int64_t now_ns);

#endif
