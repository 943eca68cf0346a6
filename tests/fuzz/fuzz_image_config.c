// The JSON files that tell how a model wants its images: config.json, preprocessor_config.json, processor_config.json, separated by bytes
// 0. What is refused says why; what is accepted makes tiles of any image.
#include "image_plans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", "preprocessor_config.json", "processor_config.json"};
static char folder[] = "/tmp/zsigma-fuzz-XXXXXX";

static void require(bool condition) {
    if (!condition) abort();
}

static void path_of(const char *name, char path[128]) { snprintf(path, 128, "%s/%s", folder, name); }

static void clean(void) {
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_of(names[i], path);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

/// An empty part is a file that is missing.
static void put(const char *name, const void *data, size_t size) {
    char path[128];
    path_of(name, path);
    (void)unlink(path);
    if (!size) return;
    FILE *file = fopen(path, "wb");
    require(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) {
        require(mkdtemp(folder) != NULL && atexit(clean) == 0);
        ready = true;
    }
    size_t at = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const uint8_t *end = at < size ? memchr(data + at, 0, size - at) : NULL;
        size_t length = end && i < 2 ? (size_t)(end - data) - at : size - at;
        put(names[i], data + at, length);
        at += length + (end && i < 2);
    }
    image_config config;
    zs_error error = {0};
    if (image_config_read_folder(folder, &config, &error)) {
        require(error.message[0]);
        return 0;
    }
    image_plans_check(&config);
    return 0;
}
