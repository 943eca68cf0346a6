#include "gpu/settings.h"

#include "gpu/cache_file.h"
#include "gpu/device_private.h"

#include <stdlib.h>
#include <string.h>

uint64_t gpu_setting_hash(const uint32_t *modules, size_t count) {
    uint64_t hash = CACHE_HASH_START;
    for (size_t i = 0; i < count; i++) hash = cache_hash(hash, shader_modules[modules[i]].words, shader_modules[modules[i]].size);
    return hash;
}

bool gpu_setting_read(const zs_device *device, const char *extension, uint64_t hash, void *data, size_t size) {
    uint8_t *file = NULL;
    size_t file_size = 0;
    if (!device->cache_dir || !cache_file_read(device->cache_dir, device->caps.cache_key, extension, &file, &file_size)) return false;
    bool sound = file_size == sizeof hash + size && memcmp(file, &hash, sizeof hash) == 0;
    if (sound) memcpy(data, file + sizeof hash, size);
    free(file);
    return sound;
}

void gpu_setting_write(const zs_device *device, const char *extension, uint64_t hash, const void *data, size_t size) {
    if (!device->cache_dir) return;
    uint8_t *file = malloc(sizeof hash + size);
    if (file) {
        memcpy(file, &hash, sizeof hash);
        memcpy(file + sizeof hash, data, size);
    }
    if (!file || !cache_file_write(device->cache_dir, device->caps.cache_key, extension, file, sizeof hash + size))
        gpu_log(device, ZS_LOG_WARNING, "a finding about the device (%s) cannot be kept in %s", extension, device->cache_dir);
    free(file);
}
