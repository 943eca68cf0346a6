/// What the device can do at most.
#include "bench.h"

zs_status bench_device(bench *b, zs_error *error) {
    if (b->peaks_known) return ZS_OK;
    zs_status status = zs_bench_device(b->stack.device, &b->peaks, error);
    if (status) return status;
    b->peaks_known = true;
    figures_add_value(&b->figures, "device_read", "GB/s", b->peaks.read_gb_per_s);
    figures_add_value(&b->figures, "device_multiply_add", "GFLOP/s", b->peaks.fma_gflop_per_s);
    if (b->peaks.matrix_gflop_per_s > 0) figures_add_value(&b->figures, "device_matrix_units", "GFLOP/s", b->peaks.matrix_gflop_per_s);
    figures_add_value(&b->figures, "device_empty_stage", "us", b->peaks.stage_us);
    return ZS_OK;
}
