/// What was found out about a device once and is kept in the cache folder, a small file per device, driver and kind of finding.
#ifndef GPU_SETTINGS_H
#define GPU_SETTINGS_H

#include "gpu/device.h"

/// Stands for the kernels that a finding is about: with other code it is no longer true.
uint64_t gpu_setting_hash(const uint32_t *modules, size_t count);
/// Reads `size` bytes that were kept under the same hash. False when there are none, or no cache folder.
bool gpu_setting_read(const zs_device *device, const char *extension, uint64_t hash, void *data, size_t size);
/// Keeps them; says so in the log where it cannot.
void gpu_setting_write(const zs_device *device, const char *extension, uint64_t hash, const void *data, size_t size);

#endif
