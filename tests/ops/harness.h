/// The bench that operation cases run on: a device, an arena of memory with guards, kernel variants, and the comparison of what a
/// kernel leaves with what is expected of every single word.
///
/// A case is prepared once and runs under every variant:
///
///     harness_case(h, "rms_norm", "width %u", width);
///     uint64_t x = harness_put(h, data, bytes);              inputs and outputs alike
///     harness_expect_f32(h, y, expected, count);             what may change, and how
///     harness_run(h, record, check, user);                   records, submits, compares, counts
///
/// The whole arena is compared, so a write to anywhere else is a failure. What lies between allocations is 0xff (NaN as f32 and
/// f16): a value read from there spoils the sum that it enters.
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H

#include "ops/ops.h"

/// A choice of kernels. Every operation runs under all of them.
typedef struct variant {
    char name[80]; // "lanes/strict", "tiles/subgroup16+storage/deterministic", "matrix64/…"
    op_policy policy;
} variant;
enum { MAX_VARIANTS = 64 };

/// What a value must be. A negative bound: its bits must not change.
typedef struct expect {
    double value, bound;
} expect;
#define UNTOUCHED ((expect){.bound = -1})

/// Unit roundoff of f32 and f16, from which bounds are made.
#define U32 (1.0 / (1 << 24))
#define U16 (1.0 / (1 << 11))

typedef struct harness harness;

typedef struct harness_params {
    const char *op, *variant, *only_case; // parts of names; NULL: all
    const char *cache_dir;
    uint32_t sample; // see harness_leaves_out; 0: 1
    uint32_t half;   // likewise; 0: all, 1: the first, third, …, 2: the others
    bool validate;
} harness_params;

harness *harness_create(const harness_params *params);
void harness_destroy(harness **h);
/// Prints the table and the last line; the process's exit status.
int harness_report(const harness *h);
void harness_list_variants(const harness *h);

/// Starts a case of operation `op`; what the case before allocated is gone. false when the command line leaves it out.
bool harness_case(harness *h, const char *op, const char *format, ...) __attribute__((format(printf, 3, 4)));

/// Cases that are the same for several varieties (types of weights, of caches) differ between them in how a value is read, and within one
/// in what is done with it: whether variety `variety` leaves case `index` out. The first takes all, each other one every `sample`-th,
/// another start for each. On drivers whose kernels differ in a width only, the first takes half of them.
bool harness_leaves_out(const harness *h, uint32_t variety, size_t index);

/// Zeroed host memory until the next case.
void *harness_alloc(harness *h, size_t count, size_t size);

// ---- random data, the same in every run -----------------------------------------------------------------------------

/// One of n, the same throughout a case.
uint32_t harness_pick(const harness *h, uint32_t n);
uint64_t random_bits(harness *h);
uint32_t random_below(harness *h, uint32_t n);
/// Uniform in [low, high).
float random_between(harness *h, float low, float high);
/// Roughly normal: mean 0, deviation 1.
float random_normal(harness *h);
float *random_floats(harness *h, size_t count, float deviation);

// ---- device memory --------------------------------------------------------------------------------------------------

/// Copies data into the arena; NULL leaves 0xff. Returns the device address, 256-aligned.
uint64_t harness_put(harness *h, const void *data, size_t bytes);
/// Host view of what a variant starts with; may be written until harness_run, and by its record callback.
void *harness_before(harness *h, uint64_t address);
/// Host view of what the kernels left; for check callbacks.
const void *harness_after(const harness *h, uint64_t address);

void harness_expect_f32(harness *h, uint64_t address, const expect *expected, size_t count);
/// Where the kernels go through f16 operands (policy.matrix_shape), `half` is what is expected instead; through integers (policy.dot),
/// `dot`.
void harness_expect_f32_or(harness *h, uint64_t address, const expect *expected, const expect *half, const expect *dot, size_t count);
void harness_expect_f16(harness *h, uint64_t address, const expect *expected, size_t count);
/// From a record or check callback: these bytes may be anything in this run (scratch, or looked at by the callback).
void harness_ignore(harness *h, uint64_t address, size_t bytes);

// ---- running --------------------------------------------------------------------------------------------------------

typedef void harness_record(harness *h, const op_recorder *recorder, void *user);
typedef void harness_check(harness *h, const variant *variant, void *user);
/// Runs the case under every variant. check may be NULL.
void harness_run(harness *h, harness_record *record, harness_check *check, void *user);
/// Counts a case that needs no device.
void harness_count(harness *h);

/// From checks: notes |error| / bound, and fails above 1 (or NaN).
void harness_ratio(harness *h, double ratio);
/// Fails the running case; the first message is kept.
void harness_fail(harness *h, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
