#include "ops/record.h"

#include <stdarg.h>
#include <stdio.h>

uint32_t op_row_workgroup(const op_recorder *recorder, uint32_t width) {
    uint32_t size = 128;
    while (size < recorder->policy.wide && size * 4 < width) size *= 2;
    return size;
}

uint32_t op_column_groups(const op_recorder *recorder, uint32_t columns, uint32_t workgroup) {
    return recorder->policy.lanes ? 1 : divide_up(columns, workgroup);
}

void op_record(const op_recorder *recorder, const op_dispatch *dispatch) {
    const gpu_kernel *kernel;
    zs_error error;
    if (!gpu_command_takes_next(recorder->command)) return;
    if (gpu_kernel_get(gpu_command_device(recorder->command), &dispatch->key, &kernel, &error)) {
        gpu_command_fail(recorder->command, &error);
        return;
    }
    gpu_command_dispatch(recorder->command, kernel, dispatch->push, dispatch->push_size, dispatch->groups[0], dispatch->groups[1],
                         dispatch->groups[2], dispatch->work);
}

void op_fail(const op_recorder *recorder, const char *format, ...) {
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    zs_error error;
    zs_error_set(&error, ZS_ERROR_ARGUMENT, "%s", message);
    gpu_command_fail(recorder->command, &error);
}
