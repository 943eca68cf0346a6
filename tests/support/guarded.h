/// Bytes that end where an inaccessible page begins, so that a read past their end stops the test in any build.
#ifndef SUPPORT_GUARDED_H
#define SUPPORT_GUARDED_H

#include <stddef.h>
#include <stdint.h>

typedef struct guarded {
    uint8_t *pages;
    size_t size; // accessible bytes in front of the guard
} guarded;

/// Room for up to capacity bytes. Aborts when there is no memory.
void guarded_create(guarded *area, size_t capacity);
/// Copies data to the end of the area; valid until the next call.
uint8_t *guarded_place(const guarded *area, const void *data, size_t size);
void guarded_destroy(guarded *area);

#endif
