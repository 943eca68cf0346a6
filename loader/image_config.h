/// How a vision model wants its images: what a Hugging Face folder's preprocessor says, or a GGUF file's keys.
#ifndef LOADER_IMAGE_CONFIG_H
#define LOADER_IMAGE_CONFIG_H

#include "loader/gguf.h"

typedef enum image_family { IMAGE_LLAVA, IMAGE_LLAVA_NEXT, IMAGE_IDEFICS3 } image_family;
/// Values are Pillow's numbers, which preprocessors name.
typedef enum image_filter { IMAGE_LANCZOS = 1, IMAGE_BILINEAR = 2, IMAGE_BICUBIC = 3 } image_filter;

enum { IMAGE_MOST_PINPOINTS = 64, IMAGE_MOST_EDGE = 4096 };

typedef struct image_config {
    image_family family;
    image_filter filter;
    uint32_t tile;           // sides of the square that the tower takes, in pixels
    uint32_t patch;          // sides of a patch
    uint32_t shuffle;        // Idefics3: one token of shuffle × shuffle patches; else 1
    double rescale;          // value = (byte · rescale − mean) / std
    double mean[3], std[3];  // of red, green, blue
    uint32_t shortest_edge;  // LLaVA: the shorter side becomes this, the middle is cut out; 0: tile × tile, whatever the aspect
    bool pad_square;         // LLaVA: first made a square by bars in the mean colour
    uint32_t pinpoint_count; // LLaVA-NeXT: sizes of its canvases, in tiles' sides
    uint32_t pinpoints[IMAGE_MOST_PINPOINTS][2]; // height, width in pixels
    uint32_t longest_edge; // Idefics3: the longer side becomes this (at most IMAGE_MOST_EDGE) before it is cut into tiles
    bool split;            // Idefics3: into tiles; else the global view alone
} image_config;

/// What transformers takes for granted in a family; the size of patches is left 0.
void image_config_defaults(image_family family, image_config *config);
/// Reads preprocessor_config.json or, in newer folders, processor_config.json, with config.json for what they leave out. What this version
/// does not compute is ZS_ERROR_UNSUPPORTED and names the key.
zs_status image_config_read_folder(const char *folder, image_config *config, zs_error *error);
/// Refuses numbers that make no sense; what every reader ends with. name: the file, for messages.
zs_status image_config_check(const image_config *config, const char *name, zs_error *error);

#endif
