// Factoring: one matrix of any shape and type against its definition; whole files, interrupted, resumed, out of disk, damaged.
#include "factor/factored.h"
#include "factor/partial.h"
#include "factor/svd.h"
#include "loader/sketch.h"
#include "support/tiny_runtime.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char dense_path[] = TEST_OUTPUT "/factor.gguf", whole_path[] = TEST_OUTPUT "/factor-whole.gguf",
                  out_path[] = TEST_OUTPUT "/factor-out.gguf";
static const char partial_path[] = TEST_OUTPUT "/factor-out.gguf.partial";

// ---- one matrix ----------------------------------------------------------------------------------------------------

typedef struct dense_matrix {
    uint32_t out, in;
    float *values;
    gguf_tensor tensor;
    model_matrix matrix;
} dense_matrix;

static double random_value(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 33) / (1u << 30) - 1;
}

/// [out, in] of a rank, its singular values falling about as those of real weights do. Freed by free(values).
static void make_matrix(uint32_t out, uint32_t in, uint32_t rank, uint64_t seed, dense_matrix *d) {
    *d = (dense_matrix){.out = out, .in = in, .values = calloc((size_t)out * in, sizeof(float))};
    double *a = malloc(sizeof *a * out * rank), *b = malloc(sizeof *b * rank * in);
    for (size_t i = 0; i < (size_t)out * rank; i++) a[i] = random_value(&seed);
    for (size_t i = 0; i < (size_t)rank * in; i++) b[i] = random_value(&seed);
    for (uint32_t i = 0; i < out; i++) {
        for (uint32_t j = 0; j < in; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < rank; k++) sum += a[(size_t)i * rank + k] * b[(size_t)k * in + j] / (1 + k);
            d->values[(size_t)i * in + j] = (float)sum;
        }
    }
    free(a);
    free(b);
}

static const model_matrix *as_model_matrix(dense_matrix *d) {
    uint64_t elements = (uint64_t)d->out * d->in;
    d->tensor = (gguf_tensor){.name = "blk.0.ffn_up.weight",
                              .type = TENSOR_F32,
                              .dims = 2,
                              .shape = {d->out, d->in},
                              .elements = elements,
                              .data = d->values,
                              .size = elements * sizeof(float)};
    d->matrix = (model_matrix){.canonical = "model.layers.0.mlp.up_proj",
                               .out = d->out,
                               .in = d->in,
                               .rank = d->out < d->in ? d->out : d->in,
                               .dense = &d->tensor};
    return &d->matrix;
}

/// A stored factor as floats.
static float *stored(const void *data, uint32_t type, size_t count) {
    float *values = malloc(count * sizeof *values);
    tensor_type_dequantise(type, data, values, count);
    return values;
}

/// Of rounding an entry of a factor, relative to its block's or its own size.
static double rounding(uint32_t type) { return type == TENSOR_F32 ? 0x1p-24 : type == TENSOR_F16 ? 0x1p-11 : 1 / 254.0; }

static void check_factored(dense_matrix *d, zs_factor_type type) {
    zs_error error;
    const model_matrix *matrix = as_model_matrix(d);
    factored f = factored_plan(matrix, type);
    uint32_t r = f.rank;
    float sketch[8];
    assert_int_equal(r, d->out < d->in ? d->out : d->in);
    tiny_need(factored_compute(matrix, "test", &f, &error), &error);
    float *u = stored(f.u, f.u_type, (size_t)d->out * r), *vt = stored(f.vt, f.vt_type, (size_t)r * d->in);
    double difference = 0, norm = 0, singular = 0;
    for (uint32_t i = 0; i < d->out; i++) {
        for (uint32_t j = 0; j < d->in; j++) {
            double sum = 0, w = (double)d->values[(size_t)i * d->in + j];
            for (uint32_t k = 0; k < r; k++) sum += (double)u[(size_t)i * r + k] * (double)f.sigma[k] * (double)vt[(size_t)k * d->in + j];
            difference += (w - sum) * (w - sum);
            norm += w * w;
        }
    }
    for (uint32_t k = 0; k < r; k++) singular += (double)f.sigma[k] * (double)f.sigma[k];
    double measured = norm > 0 ? sqrt(difference / norm) : 0,
           worst = rounding(f.u_type) > rounding(f.vt_type) ? rounding(f.u_type) : rounding(f.vt_type);
    // Entries are off by up to `rounding`, two thirds of it on the whole, in two factors: √2 · 0.6. In q8_0 that is relative to the
    // largest of 32 entries, which is about 2.2 times the usual one.
    double bound = f.u_type == TENSOR_Q8_0 || f.vt_type == TENSOR_Q8_0 ? 2.2 * worst : worst;
    if (!(measured <= bound)) fail_msg("%u x %u, type %d: off by %g", d->out, d->in, type, measured);
    assert_true(fabs(f.error - measured) <= 1e-9 + 1e-3 * measured); // what is reported is what is stored
    assert_true(fabs(singular - norm) <= 1e-5 * norm);               // ‖W‖² = Σσ²
    for (uint32_t k = 0; k < r; k++) {
        assert_true(f.sigma[k] >= 0 && (k == 0 || f.sigma[k] <= f.sigma[k - 1]));
        double largest = 0, highest = 0;
        for (uint32_t j = 0; j < d->in; j++) {
            largest = fmax(largest, fabs((double)vt[(size_t)k * d->in + j]));
            highest = fmax(highest, (double)vt[(size_t)k * d->in + j]);
        }
        assert_true(highest >= largest); // as stored, not only as decomposed
    }
    sketch_matrix(d->values, d->out, d->in, sketch);
    assert_memory_equal(sketch, f.sketch, sizeof sketch);
    free(u);
    free(vt);
    factored_free(&f);
}

static void test_shapes(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{64, 64, 64}, {96, 64, 64}, {64, 96, 64}, {300, 32, 32}, {32, 300, 32}, {64, 64, 5}, {70, 33, 12},
                                         {33, 70, 33}, {1, 80, 1},   {80, 1, 1},   {1, 1, 1},     {2, 3, 2},     {48, 48, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        dense_matrix d;
        make_matrix(shapes[i][0], shapes[i][1], shapes[i][2], i, &d);
        for (int type = ZS_FACTOR_F16; type <= ZS_FACTOR_Q8_0; type++) check_factored(&d, (zs_factor_type)type);
        free(d.values);
    }
}

/// +1 or −1: row i, column j of a Hadamard matrix.
static double hadamard(uint32_t i, uint32_t j) { return __builtin_parity(i & j) ? -1 : 1; }

/// All entries of a row of Vᵀ are about as large: which one is the largest changes as U and Vᵀ move while they are rounded.
static void test_near_ties(void **state) {
    (void)state;
    enum { N = 64 };
    for (uint64_t seed = 0; seed < 4; seed++) {
        dense_matrix d = {.out = N, .in = N, .values = calloc(N * N, sizeof(float))};
        uint64_t random = seed;
        for (uint32_t i = 0; i < N; i++) {
            for (uint32_t j = 0; j < N; j++) {
                double sum = 0;
                for (uint32_t k = 0; k < N; k++) sum += hadamard(i, k) * hadamard(k, j) / (k + 1);
                d.values[i * N + j] = (float)(sum + 1e-3 * random_value(&random));
            }
        }
        for (int type = ZS_FACTOR_F16; type <= ZS_FACTOR_Q8_0; type++) check_factored(&d, (zs_factor_type)type);
        free(d.values);
    }
}

/// U and V orthonormal, σ descending, the product W, the largest |entry| of each row of Vᵀ positive; ranks that are not full too.
static void test_svd(void **state) {
    (void)state;
    static const uint32_t shapes[][3] = {{60, 60, 60}, {90, 40, 40}, {40, 90, 40}, {50, 50, 7}, {1, 33, 1}, {33, 1, 1}, {20, 30, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        dense_matrix d;
        svd s;
        zs_error error;
        uint32_t out = shapes[i][0], in = shapes[i][1];
        make_matrix(out, in, shapes[i][2], 50 + i, &d);
        double *w = malloc(sizeof *w * out * in), norm = 0;
        for (size_t k = 0; k < (size_t)out * in; k++) {
            w[k] = (double)d.values[k];
            norm += w[k] * w[k];
        }
        tiny_need(svd_compute(w, out, in, &s, &error), &error);
        for (uint32_t a = 0; a < s.rank; a++) {
            double largest = 0;
            for (uint32_t j = 0; j < in; j++) {
                double value = s.vt[(size_t)a * in + j];
                if (fabs(value) > fabs(largest)) largest = value;
            }
            assert_true(largest > 0);
            assert_true(s.sigma[a] >= 0 && (a == 0 || s.sigma[a] <= s.sigma[a - 1]));
            for (uint32_t b = 0; b < s.rank; b++) {
                double u = 0, v = 0;
                for (uint32_t k = 0; k < out; k++) u += s.u[(size_t)k * s.rank + a] * s.u[(size_t)k * s.rank + b];
                for (uint32_t k = 0; k < in; k++) v += s.vt[(size_t)a * in + k] * s.vt[(size_t)b * in + k];
                assert_true(fabs(u - (a == b)) < 1e-13 && fabs(v - (a == b)) < 1e-13);
            }
        }
        for (uint32_t a = 0; a < out; a++) {
            for (uint32_t b = 0; b < in; b++) {
                double sum = 0;
                for (uint32_t k = 0; k < s.rank; k++) sum += s.u[(size_t)a * s.rank + k] * s.sigma[k] * s.vt[(size_t)k * in + b];
                assert_true(fabs(sum - (double)d.values[(size_t)a * in + b]) <= 1e-13 * (1 + sqrt(norm)));
            }
        }
        svd_free(&s);
        free(w);
        free(d.values);
    }
}

/// q8_0 goes by blocks of 32: other inner dimensions stay f16.
static void test_types(void **state) {
    (void)state;
    static const struct {
        uint32_t out, in;
        zs_factor_type type;
        uint32_t u, vt;
    } cases[] = {
        {64, 96, ZS_FACTOR_F32, TENSOR_F32, TENSOR_F32},    {64, 96, ZS_FACTOR_F16, TENSOR_F16, TENSOR_F16},
        {64, 96, ZS_FACTOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0}, {48, 96, ZS_FACTOR_Q8_0, TENSOR_F16, TENSOR_Q8_0},
        {64, 100, ZS_FACTOR_Q8_0, TENSOR_Q8_0, TENSOR_F16}, {50, 50, ZS_FACTOR_Q8_0, TENSOR_F16, TENSOR_F16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dense_matrix d = {.out = cases[i].out, .in = cases[i].in};
        factored f = factored_plan(as_model_matrix(&d), cases[i].type);
        assert_int_equal(f.u_type, cases[i].u);
        assert_int_equal(f.vt_type, cases[i].vt);
    }
}

static void test_not_finite(void **state) {
    (void)state;
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        dense_matrix d;
        zs_error error;
        make_matrix(40, 30, 5, 1, &d);
        d.values[7 * 30 + 11] = odd[i];
        factored f = factored_plan(as_model_matrix(&d), ZS_FACTOR_F16);
        assert_int_equal(factored_compute(&d.matrix, "file.gguf", &f, &error), ZS_ERROR_NUMERIC);
        if (!strstr(error.message, "file.gguf: tensor blk.0.ffn_up.weight") || !strstr(error.message, "row 7, column 11"))
            fail_msg("%s", error.message);
        assert_true(!f.u && !f.vt && !f.sigma);
        free(d.values);
    }
}

// ---- whole files ---------------------------------------------------------------------------------------------------

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    struct stat info = {0};
    assert_true(file && fstat(fileno(file), &info) == 0);
    uint8_t *bytes = malloc((size_t)info.st_size + 1);
    *size = fread(bytes, 1, (size_t)info.st_size, file);
    fclose(file);
    return bytes;
}

static void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_true(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static void expect_same_files(const char *a, const char *b) {
    size_t sizes[2];
    uint8_t *first = read_file(a, &sizes[0]), *second = read_file(b, &sizes[1]);
    assert_int_equal(sizes[0], sizes[1]);
    if (memcmp(first, second, sizes[0]) != 0) fail_msg("%s and %s differ", a, b);
    free(first);
    free(second);
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

/// Lets some matrices pass, then cancels.
typedef struct watcher {
    int left; // < 0: never cancels
    double last, total;
} watcher;

static bool watch(void *user, const char *what, double done, double total) {
    watcher *w = user;
    assert_string_equal(what, "factor");
    assert_true(done >= w->last && done <= total * (1 + 1e-12));
    w->last = done;
    w->total = total;
    return w->left < 0 || w->left-- > 0;
}

static zs_status run(const char *to, zs_factor_params params, int matrices, zs_factor_report *report, zs_error *error) {
    watcher w = {.left = matrices};
    params.progress = (zs_progress){watch, &w};
    if (!params.threads) params.threads = 1;
    *error = (zs_error){0};
    zs_status status = zs_factor_file(dense_path, to, &params, report, error);
    if (!status) assert_true(fabs(w.last / w.total - 1) < 1e-9);
    return status;
}

static void finish(const char *to, zs_factor_params params, zs_factor_report *report) {
    zs_error error;
    params.force = true;
    tiny_need(run(to, params, -1, report, &error), &error);
}

/// Leaves a partial file with some matrices.
static void interrupt(zs_factor_params params, int matrices) {
    zs_error error;
    unlink(out_path);
    unlink(partial_path);
    assert_int_equal(run(out_path, params, matrices, NULL, &error), ZS_ERROR_CANCELLED);
    assert_non_null(strstr(error.message, "factor-out.gguf.partial keeps"));
    assert_true(exists(partial_path) && !exists(out_path));
}

enum { MATRICES = 14 };

static void test_resume(void **state) {
    (void)state;
    zs_factor_report report;
    for (int type = ZS_FACTOR_F16; type <= ZS_FACTOR_Q8_0; type++) {
        const zs_factor_params params = {.type = (zs_factor_type)type};
        tiny_files(NULL, dense_path, 0, NULL);
        finish(whole_path, params, &report);
        assert_int_equal(report.resumed, 0);
        for (int done = 0; done <= MATRICES; done += 5) {
            interrupt(params, done);
            finish(out_path, params, &report);
            assert_int_equal(report.resumed, done);
            expect_same_files(out_path, whole_path);
            assert_false(exists(partial_path));
        }
        // Twice interrupted, then by several threads.
        interrupt(params, 3);
        zs_error error;
        assert_int_equal(run(out_path, params, 4, NULL, &error), ZS_ERROR_CANCELLED);
        finish(out_path, (zs_factor_params){.type = (zs_factor_type)type, .threads = 3}, &report);
        assert_int_equal(report.resumed, 7);
        expect_same_files(out_path, whole_path);
    }
}

/// As many matrices side by side as there is room for; one that exceeds all the room goes alone. What comes out is the same.
static void test_memory(void **state) {
    (void)state;
    zs_factor_report report;
    tiny_files(NULL, dense_path, 0, NULL);
    finish(whole_path, (zs_factor_params){.threads = 1}, &report);
    assert_int_equal(report.side_by_side, 1);
    assert_true(report.memory >= 1u << 28 && report.memory <= 8000000000);
    const uint64_t largest = report.memory_used; // of one matrix
    // ffn_gate [96, 64] in f32: in the file, as floats, as doubles; U [96, 64], Vᵀ [64, 64], and LAPACK's six of that size.
    assert_true(largest == 96 * 64 * (4 + 4 + 8 + 8) + 64 * 64 * (8 + 6 * 8));
    for (uint64_t room = 0; room <= 2; room++) {
        uint64_t memory = room ? room * largest : 1;
        finish(out_path, (zs_factor_params){.threads = 3, .memory = memory}, &report);
        expect_same_files(out_path, whole_path);
        assert_true(report.memory == memory);
        assert_true(report.memory_used <= (room ? memory : largest));
        assert_true(room ? report.side_by_side <= 3 : report.side_by_side == 1);
    }
}

static void test_report(void **state) {
    (void)state;
    zs_factor_report report;
    tiny_files(NULL, dense_path, 0, NULL);
    finish(whole_path, (zs_factor_params){.type = ZS_FACTOR_Q8_0}, &report);
    interrupt((zs_factor_params){.type = ZS_FACTOR_Q8_0}, 6);
    zs_factor_report resumed;
    finish(out_path, (zs_factor_params){.type = ZS_FACTOR_Q8_0}, &resumed);
    assert_int_equal(report.kind_count, 7);
    for (uint32_t i = 0; i < 7; i++) {
        assert_string_equal(report.kinds[i].kind, resumed.kinds[i].kind);
        assert_int_equal(report.kinds[i].matrices, TINY_LAYERS);
        assert_true(report.kinds[i].mean > 1e-4 && report.kinds[i].mean <= report.kinds[i].max && report.kinds[i].max < 0.02);
        assert_true(report.kinds[i].mean == resumed.kinds[i].mean && report.kinds[i].max == resumed.kinds[i].max);
    }
    struct stat info;
    assert_true(stat(out_path, &info) == 0 && (uint64_t)info.st_size == resumed.bytes);
}

/// Another input under the same name, of the same size and the same time: what was made from it before is worth nothing.
/// Only the matrices that are still the same are taken.
static void test_changed_input(void **state) {
    (void)state;
    zs_factor_report report;
    struct stat info;
    tiny_files(NULL, dense_path, 0, NULL);
    interrupt((zs_factor_params){0}, 9);
    assert_int_equal(stat(dense_path, &info), 0);
    tiny_files(&(tiny_model_params){.seed = 5}, dense_path, 0, NULL);
    assert_int_equal(utimensat(AT_FDCWD, dense_path, (struct timespec[]){info.st_atim, info.st_mtim}, 0), 0);
    finish(out_path, (zs_factor_params){0}, &report);
    assert_int_equal(report.resumed, 0);
    finish(whole_path, (zs_factor_params){0}, &report);
    expect_same_files(out_path, whole_path);

    tiny_files(NULL, dense_path, 0, NULL);
    interrupt((zs_factor_params){0}, 9);
    gguf_file file;
    zs_error error;
    tiny_need(gguf_open(dense_path, &file, &error), &error);
    long offset = (long)((const char *)gguf_find_tensor(&file, "blk.0.ffn_up.weight")->data - (const char *)file.map.data);
    gguf_close(&file);
    size_t size;
    uint8_t *bytes = read_file(dense_path, &size);
    // Two signs, each the top bit of 64: a hash that only multiplies carries neither down, and the second undoes the first.
    for (size_t i = 0; i < 2; i++) bytes[(size_t)offset + 7 + 8 * i] ^= 0x80;
    write_file(dense_path, bytes, size);
    free(bytes);
    finish(out_path, (zs_factor_params){0}, &report);
    assert_int_equal(report.resumed, 8);
    finish(whole_path, (zs_factor_params){0}, &report);
    expect_same_files(out_path, whole_path);
}

/// Factors of another type or of other matrices are not taken either.
static void test_changed_params(void **state) {
    (void)state;
    zs_factor_report report;
    tiny_files(NULL, dense_path, 0, NULL);
    static const zs_factor_params before[] = {{.type = ZS_FACTOR_F16}, {.type = ZS_FACTOR_F16, .matrices = ZS_MATRICES_MLP}};
    static const zs_factor_params after[] = {{.type = ZS_FACTOR_Q8_0}, {.type = ZS_FACTOR_F16, .matrices = ZS_MATRICES_ATTENTION}};
    for (size_t i = 0; i < 2; i++) {
        interrupt(before[i], 4);
        finish(out_path, after[i], &report);
        assert_int_equal(report.resumed, 0);
        finish(whole_path, after[i], &report);
        expect_same_files(out_path, whole_path);
    }
}

/// A partial file that a crash cut off or left with wrong bytes anywhere: what is sound is used, and the result is the same.
static void test_damaged_partial(void **state) {
    (void)state;
    zs_factor_report report;
    zs_error error;
    tiny_files(NULL, dense_path, 0, NULL);
    finish(whole_path, (zs_factor_params){0}, &report);
    interrupt((zs_factor_params){0}, 6);
    size_t size;
    uint8_t *bytes = read_file(partial_path, &size);
    for (size_t at = 16; at < size; at += size / 23) { // cut off
        write_file(partial_path, bytes, at);
        finish(out_path, (zs_factor_params){0}, &report);
        assert_true(report.resumed < 6);
        expect_same_files(out_path, whole_path);
    }
    uint32_t lost = 0;
    for (size_t at = 8; at < size; at += size / 41) { // one byte wrong
        bytes[at] ^= 0x10;
        write_file(partial_path, bytes, size);
        bytes[at] ^= 0x10;
        finish(out_path, (zs_factor_params){0}, &report);
        assert_true(report.resumed < 6);
        lost += report.resumed < 5;
        expect_same_files(out_path, whole_path);
    }
    assert_true(lost < 20);                       // a wrong byte among the factors costs one matrix, not all that follow
    memset(bytes + size / 2, 0, size - size / 2); // pages that never reached the disk
    write_file(partial_path, bytes, size);
    finish(out_path, (zs_factor_params){0}, &report);
    assert_in_range(report.resumed, 1, 5);
    expect_same_files(out_path, whole_path);
    free(bytes);

    // A file that only has the name is somebody's.
    write_file(partial_path, "half a download", 15);
    assert_int_equal(run(out_path, (zs_factor_params){.force = true}, -1, NULL, &error), ZS_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "factor-out.gguf.partial"));
    bytes = read_file(partial_path, &size);
    assert_int_equal(size, 15);
    free(bytes);
    write_file(partial_path, "", 0);
    finish(out_path, (zs_factor_params){0}, &report);
    mkdir(partial_path, 0777);
    assert_int_equal(run(out_path, (zs_factor_params){.force = true}, -1, NULL, &error), ZS_ERROR_IO);
    rmdir(partial_path);
}

/// Two runs do not write into one file.
static void test_two_runs(void **state) {
    (void)state;
    zs_error error;
    partial_file other;
    tiny_files(NULL, dense_path, 0, NULL);
    unlink(partial_path);
    tiny_need(partial_open(out_path, 1, 0, NULL, &other, &error), &error);
    assert_int_equal(run(out_path, (zs_factor_params){.force = true}, -1, NULL, &error), ZS_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "another run"));
    partial_close(&other, true);
    assert_false(exists(partial_path));
}

/// The disk is full at some point, of the partial file or of the output: an error that names the file, no output, and work that
/// goes on when there is room again.
static void test_full_disk(void **state) {
    (void)state;
    zs_factor_report report;
    zs_error error;
    struct rlimit limit, full;
    tiny_files(NULL, dense_path, 0, NULL);
    finish(whole_path, (zs_factor_params){0}, &report);
    uint64_t whole = report.bytes;
    interrupt((zs_factor_params){0}, MATRICES);
    struct stat info;
    assert_int_equal(stat(partial_path, &info), 0);
    assert_true((uint64_t)info.st_size < whole); // so that a limit between the two lets the partial file be finished
    const uint64_t room[] = {4, 16, 20000, (uint64_t)info.st_size / 2, (uint64_t)info.st_size, whole - 1};
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        unlink(out_path);
        unlink(partial_path);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
        full = limit;
        full.rlim_cur = room[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
        zs_status status = run(out_path, (zs_factor_params){0}, -1, NULL, &error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_int_equal(status, ZS_ERROR_IO);
        if (!strstr(error.message, "factor-out.gguf") || !strstr(error.message, "large"))
            fail_msg("%s", error.message); // EFBIG here, ENOSPC on a disk
        assert_false(exists(out_path));
        finish(out_path, (zs_factor_params){0}, &report);
        assert_true(i < 3 || report.resumed > 3);
        assert_true(i < 4 || report.resumed == MATRICES);
        expect_same_files(out_path, whole_path);
    }
}

static void test_outputs(void **state) {
    (void)state;
    zs_factor_report report;
    zs_error error;
    size_t size;
    tiny_files(NULL, dense_path, 0, NULL);
    write_file(out_path, "precious", 8);
    assert_int_equal(run(out_path, (zs_factor_params){0}, -1, NULL, &error), ZS_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "--force"));
    uint8_t *bytes = read_file(out_path, &size);
    assert_true(size == 8 && memcmp(bytes, "precious", 8) == 0);
    free(bytes);
    finish(out_path, (zs_factor_params){0}, &report);
    assert_int_equal(run(dense_path, (zs_factor_params){.force = true}, -1, NULL, &error), ZS_ERROR_ARGUMENT); // onto itself
    assert_int_equal(run(TEST_OUTPUT "/nowhere/out.gguf", (zs_factor_params){0}, -1, NULL, &error), ZS_ERROR_IO);
    assert_int_equal(zs_factor_file(out_path, whole_path, &(zs_factor_params){.force = true}, NULL, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "factored already"));
    assert_int_equal(zs_factor_file(TEST_OUTPUT "/nothing.gguf", whole_path, &(zs_factor_params){.force = true}, NULL, &error),
                     ZS_ERROR_IO);
}

/// What is not adapted stays as it was, byte for byte; what is comes back in Hugging Face's row order.
static void test_matrices(void **state) {
    (void)state;
    zs_factor_report report;
    zs_error error;
    tiny_files(&(tiny_model_params){.weight_type = TENSOR_Q8_0}, dense_path, 0, NULL);
    static const uint32_t chosen[] = {ZS_MATRICES_MLP, ZS_MATRICES_ATTENTION};
    for (size_t i = 0; i < 2; i++) {
        model_file from, to;
        finish(out_path, (zs_factor_params){.matrices = chosen[i], .type = ZS_FACTOR_F32}, &report);
        tiny_need(model_file_open(dense_path, &from, &error), &error);
        tiny_need(model_file_open(out_path, &to, &error), &error);
        assert_true(to.config.factored);
        assert_int_equal(report.kind_count, i ? 4 : 3);
        for (uint32_t at = 0; at < TINY_LAYERS * MODEL_MATRICES; at++) {
            const model_matrix *a = &from.layers[at / MODEL_MATRICES].matrices[at % MODEL_MATRICES],
                               *b = &to.layers[at / MODEL_MATRICES].matrices[at % MODEL_MATRICES];
            bool mlp = at % MODEL_MATRICES >= MODEL_GATE;
            assert_true((b->dense == NULL) == (mlp == (i == 0)));
            if (!b->dense) {
                assert_true(b->u && b->s && b->vt && b->sketch);
                continue;
            }
            assert_int_equal(a->dense->type, b->dense->type);
            assert_int_equal(a->permute_heads, b->permute_heads);
            assert_memory_equal(a->dense->data, b->dense->data, a->dense->size);
        }
        assert_memory_equal(from.embedding->data, to.embedding->data, from.embedding->size);
        model_file_close(&from);
        model_file_close(&to);
    }
}

/// NaN in one matrix: refused with its name; those that are sound are kept for the next run.
static void test_nan_in_a_file(void **state) {
    (void)state;
    zs_error error;
    gguf_file file;
    const float nan = NAN;
    size_t size;
    tiny_files(NULL, dense_path, 0, NULL);
    tiny_need(gguf_open(dense_path, &file, &error), &error);
    size_t offset = (size_t)((const char *)gguf_find_tensor(&file, "blk.1.attn_k.weight")->data - (const char *)file.map.data);
    gguf_close(&file);
    uint8_t *bytes = read_file(dense_path, &size);
    memcpy(bytes + offset + 400, &nan, sizeof nan);
    write_file(dense_path, bytes, size);
    free(bytes);
    unlink(out_path);
    unlink(partial_path);
    assert_int_equal(run(out_path, (zs_factor_params){.threads = 2}, -1, NULL, &error), ZS_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "tensor blk.1.attn_k.weight holds NaN"));
    assert_false(exists(out_path));
    tiny_files(NULL, dense_path, 0, NULL);
    zs_factor_report report;
    finish(out_path, (zs_factor_params){0}, &report);
    assert_in_range(report.resumed, 6, MATRICES - 1);
    finish(whole_path, (zs_factor_params){0}, &report);
    expect_same_files(out_path, whole_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svd),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_near_ties),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_changed_input),
        cmocka_unit_test(test_changed_params),
        cmocka_unit_test(test_damaged_partial),
        cmocka_unit_test(test_two_runs),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_nan_in_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
