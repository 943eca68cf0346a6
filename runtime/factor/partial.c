#include "factor/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

typedef struct header {
    char magic[8];
    uint64_t key;
} header;

typedef struct record {
    uint32_t index, mark; // mark: RECORD_MARK ^ index
    uint64_t bytes;       // of sigma, u and vt that follow
    uint64_t weights;     // hash of the weights it was made from
    double error;
    float sketch[8];
    uint64_t check; // hash of all of the above, then sigma, u and vt
} record;

static const char magic[8] = "zspart2";
enum { RECORD_MARK = 0x7a5e6c0d };

uint64_t partial_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    hash ^= 0xcbf29ce484222325u + size;
    while (size) { // FNV-1a by words, with the upper bits brought down
        uint64_t word = 0;
        size_t n = size < sizeof word ? size : sizeof word;
        memcpy(&word, bytes, n);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 32;
        bytes += n;
        size -= n;
    }
    return hash;
}

static zs_status read_error(const partial_file *p, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_IO, "cannot read %s: %s", p->path, strerror(errno));
}

static zs_status write_error(const partial_file *p, zs_error *error) {
    return zs_error_set(error, ZS_ERROR_IO, "cannot write %s: %s; what is finished stays there, and the same command goes on from it",
                        p->path, strerror(errno));
}

static uint64_t payload_bytes(const factored *f) { return f->rank * sizeof(float) + f->u_bytes + f->vt_bytes; }

static uint64_t hash_head(const record *r) { return partial_hash(0, r, offsetof(record, check)); }

/// Whether the payload that comes next in the stream is what the record says.
static bool check_payload(const partial_file *p, const record *r, const factored *plan) {
    const uint64_t parts[] = {plan->rank * sizeof(float), plan->u_bytes, plan->vt_bytes};
    uint64_t hash = hash_head(r);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        void *part = malloc(parts[i]);
        bool read = part && fread(part, 1, parts[i], p->stream) == parts[i];
        if (read) hash = partial_hash(hash, part, parts[i]);
        free(part);
        if (!read) return false;
    }
    return hash == r->check;
}

/// Finds sound records; returns where the next one goes.
static uint64_t scan(partial_file *p, const factored *plans, uint64_t size) {
    uint64_t at = sizeof(header);
    record r;
    while (at + sizeof r <= size && fseeko(p->stream, (off_t)at, SEEK_SET) == 0 && fread(&r, sizeof r, 1, p->stream) == 1) {
        if (r.index >= p->count || r.mark != ((uint32_t)RECORD_MARK ^ r.index) || r.bytes != payload_bytes(&plans[r.index]) ||
            r.bytes > size - at - sizeof r)
            break;
        if (check_payload(p, &r, &plans[r.index])) {
            p->offsets[r.index] = at;
            p->weights[r.index] = r.weights;
        }
        at += sizeof r + r.bytes;
    }
    return at;
}

static zs_status start_anew(partial_file *p, uint64_t key, zs_error *error) {
    header h = {.key = key};
    memcpy(h.magic, magic, sizeof magic);
    bool written = ftruncate(fileno(p->stream), 0) == 0 && fseeko(p->stream, 0, SEEK_SET) == 0 && fwrite(&h, sizeof h, 1, p->stream) == 1 &&
                   fflush(p->stream) == 0;
    return written ? ZS_OK : write_error(p, error);
}

static zs_status open_locked(partial_file *p, uint64_t *size, zs_error *error) {
    struct stat info;
    int fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) p->stream = fdopen(fd, "r+b");
    if (!p->stream || fstat(fd, &info)) {
        zs_status status = zs_error_set(error, ZS_ERROR_IO, "cannot open %s: %s", p->path, strerror(errno));
        if (fd >= 0 && !p->stream) close(fd);
        return status;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return zs_error_set(error, ZS_ERROR_EXISTS, "another run is at work on %s: wait for it or choose another output", p->path);
    *size = (uint64_t)info.st_size;
    return ZS_OK;
}

static zs_status start(partial_file *p, uint64_t key, const factored *plans, zs_error *error) {
    header h;
    uint64_t size = 0;
    zs_status status = open_locked(p, &size, error);
    if (status) return status;
    size_t got = fread(&h, 1, sizeof h, p->stream), family = sizeof magic - 2; // of any version
    if (memcmp(h.magic, magic, got < family ? got : family) != 0)
        return zs_error_set(error, ZS_ERROR_EXISTS,
                            "%s exists and is no unfinished work of zsigma factor: move it away or choose another output", p->path);
    if (got < sizeof h || memcmp(h.magic, magic, sizeof magic) != 0 || h.key != key) return start_anew(p, key, error);
    uint64_t end = scan(p, plans, size);
    return ftruncate(fileno(p->stream), (off_t)end) ? write_error(p, error) : ZS_OK;
}

zs_status partial_open(const char *output, uint64_t key, uint32_t count, const factored *plans, partial_file *p, zs_error *error) {
    size_t size = strlen(output) + sizeof ".partial";
    *p = (partial_file){
        .count = count, .path = malloc(size), .offsets = calloc(count, sizeof *p->offsets), .weights = calloc(count, sizeof *p->weights)};
    zs_status status = ZS_OK;
    if (!p->path || !p->offsets || !p->weights) {
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while factoring into %s", output);
    } else {
        snprintf(p->path, size, "%s.partial", output);
        status = start(p, key, plans, error);
    }
    if (status) partial_close(p, false);
    return status;
}

zs_status partial_append(partial_file *p, uint32_t index, uint64_t weights, const factored *f, zs_error *error) {
    record r = {.index = index, .mark = (uint32_t)RECORD_MARK ^ index, .bytes = payload_bytes(f), .weights = weights, .error = f->error};
    memcpy(r.sketch, f->sketch, sizeof r.sketch);
    r.check = partial_hash(hash_head(&r), f->sigma, f->rank * sizeof(float));
    r.check = partial_hash(partial_hash(r.check, f->u, f->u_bytes), f->vt, f->vt_bytes);
    if (fseeko(p->stream, 0, SEEK_END)) return write_error(p, error);
    off_t at = ftello(p->stream);
    bool written = fwrite(&r, sizeof r, 1, p->stream) == 1 && fwrite(f->sigma, sizeof(float), f->rank, p->stream) == f->rank &&
                   fwrite(f->u, 1, f->u_bytes, p->stream) == f->u_bytes && fwrite(f->vt, 1, f->vt_bytes, p->stream) == f->vt_bytes &&
                   fflush(p->stream) == 0;
    if (!written) return write_error(p, error);
    p->offsets[index] = (uint64_t)at;
    return ZS_OK;
}

zs_status partial_read(partial_file *p, uint32_t index, factored *f, zs_error *error) {
    record r;
    if (fseeko(p->stream, (off_t)p->offsets[index], SEEK_SET) || fread(&r, sizeof r, 1, p->stream) != 1) return read_error(p, error);
    f->error = r.error;
    memcpy(f->sketch, r.sketch, sizeof r.sketch);
    f->sigma = malloc(f->rank * sizeof *f->sigma);
    f->u = malloc(f->u_bytes);
    f->vt = malloc(f->vt_bytes);
    zs_status status = ZS_OK;
    if (!f->sigma || !f->u || !f->vt)
        status = zs_error_set(error, ZS_ERROR_MEMORY, "out of memory while writing factors");
    else if (fread(f->sigma, sizeof(float), f->rank, p->stream) != f->rank || fread(f->u, 1, f->u_bytes, p->stream) != f->u_bytes ||
             fread(f->vt, 1, f->vt_bytes, p->stream) != f->vt_bytes)
        status = read_error(p, error);
    if (status) factored_free(f);
    return status;
}

void partial_close(partial_file *p, bool remove_file) {
    if (remove_file) unlink(p->path);
    if (p->stream) fclose(p->stream);
    free(p->path);
    free(p->offsets);
    free(p->weights);
    *p = (partial_file){0};
}
