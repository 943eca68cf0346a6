#include "cases.h"

step_addresses put_step(harness *h, const step_data *data) {
    step_addresses a = {0};
    if (data->rows) a.rows = harness_put(h, data->rows, data->row_count * sizeof *data->rows);
    if (data->span_count) a.spans = harness_put(h, data->spans, data->span_count * sizeof *data->spans);
    Step step = {.rows = a.rows, .spans = a.spans, .scale_stride = data->scale_stride, .page_stride = data->page_stride};
    if (data->scales) step.scales = harness_put(h, data->scales, (size_t)data->scale_rows * data->scale_stride * sizeof *data->scales);
    if (data->pages) step.pages = harness_put(h, data->pages, (size_t)data->page_rows * data->page_stride * sizeof *data->pages);
    a.step = harness_put(h, &step, sizeof step);
    return a;
}
