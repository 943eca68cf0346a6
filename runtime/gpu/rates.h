/// What work costs on a device: learned from how long earlier submits took.
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
    // Without timestamps: what was submitted since the device was last known to be idle, for wall-clock learning.
    double waiting_byte_ns, waiting_flop_ns;
    int64_t busy_since_ns;
} gpu_rates;

/// Estimated time of some work, split by what bounds it; sums of these over dispatches are what gpu_rates_learn takes.
typedef struct gpu_estimate {
    double byte_ns, flop_ns;
} gpu_estimate;

/// Sane starting rates for a type of device.
void gpu_rates_open(gpu_rates *rates, zs_device_type type);
gpu_estimate gpu_rates_estimate(gpu_rates *rates, gpu_work work);
void gpu_rates_learn(gpu_rates *rates, gpu_estimate estimate, double measured_ns);
/// For devices without timestamps: work was submitted …
void gpu_rates_submitted(gpu_rates *rates, gpu_estimate estimate, int64_t now_ns);
/// … and all of it is done.
void gpu_rates_idle(gpu_rates *rates, int64_t now_ns);

#endif
