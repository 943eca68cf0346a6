#include "gpu/rates.h"

#include "gpu/device_private.h"
#include "gpu/settings.h"

#include <math.h>

enum { LESSONS = 8 };                    // that make a rate worth keeping
static const double change = 1.5;        // of a rate, from which on it is kept anew
static const char extension[] = "rates"; // of the file in the cache folder

typedef struct kept_rates {
    double ns_per_byte, ns_per_flop;
} kept_rates;

static void start_rates(gpu_rates *rates, zs_device_type type) {
    switch (type) {
    case ZS_DEVICE_DISCRETE: rates->ns_per_flop = 1e9 / 5e12, rates->ns_per_byte = 1e9 / 3e11; break;
    case ZS_DEVICE_CPU: rates->ns_per_flop = 1e9 / 5e9, rates->ns_per_byte = 1e9 / 5e9; break;
    default: rates->ns_per_flop = 1e9 / 5e11, rates->ns_per_byte = 1e9 / 3e10; break;
    }
}

void gpu_rates_open(zs_device *device) {
    gpu_rates *rates = &device->rates;
    kept_rates kept;
    start_rates(rates, device->physical.info.type);
    if (gpu_setting_read(device, extension, gpu_setting_hash(NULL, 0), &kept, sizeof kept) && isfinite(kept.ns_per_byte) &&
        isfinite(kept.ns_per_flop) && kept.ns_per_byte > 0 && kept.ns_per_flop > 0) {
        rates->ns_per_byte = kept.ns_per_byte;
        rates->ns_per_flop = kept.ns_per_flop;
    }
    rates->kept_ns_per_byte = rates->ns_per_byte;
    rates->kept_ns_per_flop = rates->ns_per_flop;
}

static bool worth_keeping(double learned, double kept, uint32_t lessons) {
    return lessons >= LESSONS && (learned > change * kept || kept > change * learned);
}

void gpu_rates_keep(zs_device *device) {
    const gpu_rates *rates = &device->rates;
    const bool bytes = worth_keeping(rates->ns_per_byte, rates->kept_ns_per_byte, rates->byte_lessons);
    const bool flops = worth_keeping(rates->ns_per_flop, rates->kept_ns_per_flop, rates->flop_lessons);
    const kept_rates kept = {bytes ? rates->ns_per_byte : rates->kept_ns_per_byte, flops ? rates->ns_per_flop : rates->kept_ns_per_flop};
    if (bytes || flops) gpu_setting_write(device, extension, gpu_setting_hash(NULL, 0), &kept, sizeof kept);
}

gpu_estimate gpu_rates_estimate(gpu_rates *rates, gpu_work work) {
    pthread_mutex_lock(&rates->mutex);
    double byte_ns = work.bytes * rates->ns_per_byte, flop_ns = work.flops * rates->ns_per_flop;
    pthread_mutex_unlock(&rates->mutex);
    return byte_ns >= flop_ns ? (gpu_estimate){byte_ns, {.bytes = work.bytes}} : (gpu_estimate){flop_ns, {.flops = work.flops}};
}

static void learn_locked(gpu_rates *rates, gpu_work bound, double measured_ns) {
    double byte_ns = bound.bytes * rates->ns_per_byte, flop_ns = bound.flops * rates->ns_per_flop, estimated_ns = byte_ns + flop_ns;
    if (estimated_ns < 1e5 || measured_ns <= 0) return; // below 0.1 ms fixed costs tell more than rates
    double ratio = measured_ns / estimated_ns;
    ratio = ratio < 0.25 ? 0.25 : ratio > 4 ? 4 : ratio; // one hiccup must not turn everything over
    double factor = 1 + 0.3 * (ratio - 1);
    if (byte_ns >= flop_ns) {
        rates->ns_per_byte *= factor;
        rates->byte_lessons++;
    } else {
        rates->ns_per_flop *= factor;
        rates->flop_lessons++;
    }
}

void gpu_rates_learn(gpu_rates *rates, gpu_work bound, double measured_ns) {
    pthread_mutex_lock(&rates->mutex);
    learn_locked(rates, bound, measured_ns);
    pthread_mutex_unlock(&rates->mutex);
}

void gpu_rates_submitted(gpu_rates *rates, gpu_work bound, int64_t now_ns) {
    pthread_mutex_lock(&rates->mutex);
    if (rates->waiting.bytes + rates->waiting.flops == 0) rates->busy_since_ns = now_ns;
    rates->waiting.bytes += bound.bytes;
    rates->waiting.flops += bound.flops;
    pthread_mutex_unlock(&rates->mutex);
}

void gpu_rates_idle(gpu_rates *rates, int64_t now_ns) {
    pthread_mutex_lock(&rates->mutex);
    learn_locked(rates, rates->waiting, (double)(now_ns - rates->busy_since_ns));
    rates->waiting = (gpu_work){0};
    pthread_mutex_unlock(&rates->mutex);
}
