#include "factor/partial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef struct header {
    char magic[8];
    uint64_t key;
} header;

typedef struct record {
    uint32_t index, mark; // mark: RECORD_MARK ^ index
    uint64_t bytes;       // of sigma, u and vt that follow
    double error;
    float sketch[8];
} record;

static const char magic[8] = "zspart1";
enum { RECORD_MARK = 0x7a5e6c0d };

static zs_status io_error(const partial_file *p, zs_error *error) { return zs_error_set(error, ZS_ERROR_IO, "cannot write or read %s: %s", p->path, strerror(errno)); }

static uint64_t payload_bytes(const factored *f) { return f->rank * sizeof(float) + f->u_bytes + f->vt_bytes; }

/// Finds whole records; returns where the next one goes.
static uint64_t scan(partial_file *p, const factored *plans, uint64_t size, uint32_t *found) {
    uint64_t at = sizeof(header);
    record r;
    while (at + sizeof r <= size && fseeko(p->stream, (off_t)at, SEEK_SET) == 0 && fread(&r, sizeof r, 1, p->stream) == 1) {
        if (r.index >= p->count || r.mark != ((uint32_t)RECORD_MARK ^ r.index) || r.bytes != payload_bytes(&plans[r.index]) || r.bytes > size - at - sizeof r) break;
        if (!p->offsets[r.index]) (*found)++;
        p->offsets[r.index] = at;
        at += sizeof r + r.bytes;
    }
    return at;
}

static zs_status start(partial_file *p, uint64_t key, const factored *plans, uint32_t *found, zs_error *error) {
    header h;
    p->stream = fopen(p->path, "r+b");
    if (p->stream && fread(&h, sizeof h, 1, p->stream) == 1 && memcmp(h.magic, magic, sizeof magic) == 0 && h.key == key && fseeko(p->stream, 0, SEEK_END) == 0) {
        uint64_t end = scan(p, plans, (uint64_t)ftello(p->stream), found);
        if (ftruncate(fileno(p->stream), (off_t)end) || fseeko(p->stream, 0, SEEK_END)) return io_error(p, error);
        return ZS_OK;
    }
    if (p->stream) fclose(p->stream);
    p->stream = fopen(p->path, "w+b");
    if (!p->stream) return zs_error_set(error, ZS_ERROR_IO, "cannot create %s: %s", p->path, strerror(errno));
    memcpy(h.magic, magic, sizeof magic);
    h.key = key;
    return fwrite(&h, sizeof h, 1, p->stream) == 1 ? ZS_OK : io_error(p, error);
}

zs_status partial_open(const char *output, uint64_t key, uint32_t count, const factored *plans, partial_file *p, uint32_t *resumed, zs_error *error) {
    size_t size = strlen(output) + sizeof ".partial";
    *p = (partial_file){.count = count, .path = malloc(size), .offsets = calloc(count, sizeof *p->offsets)};
    *resumed = 0;
    zs_status status = ZS_OK;
    if (!p->path || !p->offsets) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while factoring into %s", output);
    } else {
        snprintf(p->path, size, "%s.partial", output);
        status = start(p, key, plans, resumed, error);
    }
    if (status) partial_close(p, false);
    return status;
}

zs_status partial_append(partial_file *p, uint32_t index, const factored *f, zs_error *error) {
    record r = {.index = index, .mark = (uint32_t)RECORD_MARK ^ index, .bytes = payload_bytes(f), .error = f->error};
    memcpy(r.sketch, f->sketch, sizeof r.sketch);
    if (fseeko(p->stream, 0, SEEK_END)) return io_error(p, error);
    off_t at = ftello(p->stream);
    bool written = fwrite(&r, sizeof r, 1, p->stream) == 1 && fwrite(f->sigma, sizeof(float), f->rank, p->stream) == f->rank && fwrite(f->u, 1, f->u_bytes, p->stream) == f->u_bytes &&
                   fwrite(f->vt, 1, f->vt_bytes, p->stream) == f->vt_bytes && fflush(p->stream) == 0;
    if (!written) return io_error(p, error);
    p->offsets[index] = (uint64_t)at;
    return ZS_OK;
}

zs_status partial_read(partial_file *p, uint32_t index, factored *f, zs_error *error) {
    record r;
    if (fseeko(p->stream, (off_t)p->offsets[index], SEEK_SET) || fread(&r, sizeof r, 1, p->stream) != 1) return io_error(p, error);
    f->error = r.error;
    memcpy(f->sketch, r.sketch, sizeof r.sketch);
    f->sigma = malloc(f->rank * sizeof *f->sigma);
    f->u = malloc(f->u_bytes);
    f->vt = malloc(f->vt_bytes);
    zs_status status = ZS_OK;
    if (!f->sigma || !f->u || !f->vt) status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing factors");
    else if (fread(f->sigma, sizeof(float), f->rank, p->stream) != f->rank || fread(f->u, 1, f->u_bytes, p->stream) != f->u_bytes || fread(f->vt, 1, f->vt_bytes, p->stream) != f->vt_bytes)
        status = io_error(p, error);
    if (status) factored_free(f);
    return status;
}

void partial_close(partial_file *p, bool remove_file) {
    if (p->stream) fclose(p->stream);
    if (remove_file) unlink(p->path);
    free(p->path);
    free(p->offsets);
    *p = (partial_file){0};
}
