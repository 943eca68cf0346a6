#include "support/guarded.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void guarded_create(guarded *area, size_t capacity) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    area->size = (capacity + page - 1) / page * page;
    area->pages = mmap(NULL, area->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area->pages == MAP_FAILED || mprotect(area->pages + area->size, page, PROT_NONE)) abort();
}

uint8_t *guarded_place(const guarded *area, const void *data, size_t size) {
    if (size > area->size) abort();
    uint8_t *place = area->pages + area->size - size;
    if (size) memcpy(place, data, size);
    return place;
}

void guarded_destroy(guarded *area) {
    munmap(area->pages, area->size + (size_t)sysconf(_SC_PAGESIZE));
    *area = (guarded){0};
}
