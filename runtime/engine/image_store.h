/// Features of images on the device, kept for the prompts that hold them. Each row has an id of its own behind the vocabulary, never used
/// twice: so an image in a prompt is a run of ids, and what keys the prefix cache by tokens keys it by images too.
#ifndef ENGINE_IMAGE_STORE_H
#define ENGINE_IMAGE_STORE_H

#include "vision/encoder.h"

typedef struct stored_image {
    uint64_t hash[2]; // of its pixels
    uint64_t serial;  // of the z that the tower had; 0 where the tower is dense
    uint32_t first_id, first_row, rows;
    uint64_t used; // engine's clock at the last use
} stored_image;

typedef struct image_store {
    gpu_buffer features; // [capacity, stride]; made with the first image
    uint32_t capacity, stride;
    stored_image *images; // [count], by first_row
    uint32_t count;
    uint32_t next_id; // 0: none was given yet
    vision_encoder *encoder;
    gpu_command *command;
    gpu_buffer projected; // features as the projector leaves them, and the newline behind them
    gpu_buffer index;     // of a prompt's rows in it
} image_store;

#endif
