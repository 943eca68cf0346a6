/// make_vision_pair FOLDER TEXT.gguf MMPROJ.gguf [old]: a model folder as llama.cpp's pair of files.
#include "support/vision_pair.h"

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    vision_pair_write(argv[1], argv[2], argv[3], &(vision_pair_options){.old = argc > 4});
    return 0;
}
