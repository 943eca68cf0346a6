#include "support/safetensors_image.h"

#include <string.h>

byte_buffer safetensors_image(const char *header, const void *data, size_t size) {
    byte_buffer file = {0};
    byte_buffer_put_string(&file, header, strlen(header));
    for (size_t i = 8; i < file.size; i++)
        if (file.data[i] == '\'') file.data[i] = '"';
    byte_buffer_put(&file, data, size);
    return file;
}
