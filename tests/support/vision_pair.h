/// A model folder with a tower as llama.cpp's pair of files: the language model, and the tower beside it (mmproj).
#ifndef TESTS_SUPPORT_VISION_PAIR_H
#define TESTS_SUPPORT_VISION_PAIR_H

#include "loader/model_file.h"

typedef struct vision_pair_options {
    bool old; // as its first converter wrote: fc1 and fc2 under each other's names, layers that are not used left out, and no key
              // that tells which one is
    const char *without; // a key or tensor that is left out
} vision_pair_options;

/// Either path may be NULL: not written. Existing files are replaced. Aborts on failure.
void vision_pair_write(const char *folder, const char *text, const char *mmproj, const vision_pair_options *options);

#endif
