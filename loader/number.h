/// Numbers as text in files: with a point, whatever the process's locale writes.
#ifndef LOADER_NUMBER_H
#define LOADER_NUMBER_H

#include <stdbool.h>

enum { NUMBER_BYTES = 32 };

/// The whole text as a number; false when it is not one from its first to its last character.
bool number_read(const char *text, double *value);
/// Spells a number so that it reads back as the same.
void number_write(double value, char text[NUMBER_BYTES]);

#endif
