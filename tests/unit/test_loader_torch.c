// PyTorch's files: what torch.save wrote is read, what we write is read again, and no damage does worse than an error.
// tests/golden/torch_files.py made tests/golden/torch.
#include "loader/authors_file.h"
#include "loader/pickle.h"
#include "loader/torch_file.h"
#include "support/guarded.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURES TEST_DATA "/golden/torch/"
static const char output[] = TEST_OUTPUT "/loader_torch.pt";

/// p(index, 4) of torch_files.py
static float fixture(uint32_t index, uint32_t i) { return ((float)(index * 16 + i) - 20) / 32; }

static void need(zs_status status, const zs_error *error) {
    if (status) fail_msg("%s", error->message);
}

static const expert_matrix *find(const expert_file *expert, const char *name) {
    for (size_t i = 0; i < expert->matrix_count; i++) {
        if (strcmp(expert->matrices[i].name, name) == 0) return &expert->matrices[i];
    }
    fail_msg("%s is missing", name);
    return NULL;
}

static void check_fixture(const expert_file *expert) {
    static const char *const kinds[] = {"gate_proj", "up_proj", "down_proj"};
    assert_int_equal(expert->matrix_count, 6);
    assert_true(expert->sigmoid && expert->trace && expert->max_mult == 1);
    for (uint32_t i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%u.mlp.%s", i / 3, kinds[i % 3]);
        const expert_matrix *m = find(expert, name);
        assert_int_equal(m->rank, 4);
        for (uint32_t r = 0; r < 4; r++) assert_true(m->values[r] == fixture(i, r));
        if (i) assert_true(strcmp(expert->matrices[i - 1].name, expert->matrices[i].name) < 0);
    }
}

static void test_experts(void **state) {
    (void)state;
    static const char *const files[] = {FIXTURES "policy_params.pt", FIXTURES "learnable_params.pt", FIXTURES "deflated.pt"};
    for (size_t i = 0; i < 3; i++) {
        expert_file expert;
        zs_error error;
        need(authors_file_load(files[i], &expert, &error), &error);
        check_fixture(&expert);
        expert_file_free(&expert);
    }
}

/// Σ α m, with m = p² + 0.5 in the fixture.
static void test_mix(void **state) {
    (void)state;
    static const char *const names[] = {"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"};
    expert_file expert;
    zs_error error;
    need(authors_file_load(FIXTURES "mix.pt", &expert, &error), &error);
    assert_int_equal(expert.matrix_count, 3);
    assert_true(!expert.sigmoid && expert.trace);
    assert_string_equal(expert.alpha, "0.5,0.25");
    assert_string_equal(expert.sources, "0,1");
    for (uint32_t i = 0; i < 3; i++) {
        const expert_matrix *m = find(&expert, names[i]);
        for (uint32_t r = 0; r < 4; r++) {
            double a = (double)fixture(i, r), b = (double)fixture(i + 1, r);
            assert_true(fabs((double)m->values[r] - (0.5 * (a * a + 0.5) + 0.25 * (b * b + 0.5))) < 1e-6);
        }
    }
    expert_file_free(&expert);
}

/// Strides, an offset, halves and doubles, nothing, one number; a module's state_dict.
static void test_views(void **state) {
    (void)state;
    torch_file file;
    zs_error error;
    float values[24];
    need(torch_open(FIXTURES "views.pt", &file, &error), &error);
    assert_int_equal(file.count, 5);
    const torch_tensor *t = torch_find(&file, "a"); // rows 1 … 3, every other column
    assert_true(t->type == TORCH_DOUBLE && t->dims == 2 && t->shape[0] == 3 && t->shape[1] == 3);
    torch_read(t, values);
    for (int i = 0; i < 9; i++) assert_true(values[i] == (float)(6 + i / 3 * 6 + i % 3 * 2));
    t = torch_find(&file, "b"); // transposed
    torch_read(t, values);
    for (int i = 0; i < 24; i++) assert_true(values[i] == (float)(i / 4 + i % 4 * 6));
    t = torch_find(&file, "half");
    torch_read(t, values);
    assert_true(t->type == TORCH_HALF && values[0] == 1 && values[1] == -2);
    assert_int_equal(torch_find(&file, "none")->elements, 0);
    t = torch_find(&file, "scalar");
    torch_read(t, values);
    assert_true(t->dims == 0 && t->elements == 1 && values[0] == 7);
    assert_null(torch_find(&file, "c"));
    torch_close(&file);
    need(torch_open(FIXTURES "state_dict.pt", &file, &error), &error);
    torch_read(torch_find(&file, "weight"), values);
    assert_true(values[0] == 0.25f && values[1] == -4);
    torch_close(&file);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *file;
        zs_status status;
        const char *part;
    } cases[] = {
        {FIXTURES "module.pt", ZS_ERROR_UNSUPPORTED, "torch.nn.modules.linear.Linear"},
        {FIXTURES "integers.pt", ZS_ERROR_UNSUPPORTED, "torch.LongStorage"},
        {FIXTURES "number.pt", ZS_ERROR_UNSUPPORTED, "a is no tensor"},
        {FIXTURES "bare.pt", ZS_ERROR_UNSUPPORTED, "no dictionary"},
        {FIXTURES "old.pt", ZS_ERROR_UNSUPPORTED, "before PyTorch 1.6"},
        {FIXTURES "views.pt", ZS_ERROR_UNSUPPORTED, "tensor a is no matrix"},
        {FIXTURES "none.pt", ZS_ERROR_IO, "none.pt"},
        {TEST_DATA "/golden/expert-random-mlp.safetensors", ZS_ERROR_FORMAT, "no zip archive"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expert_file expert;
        zs_error error = {0};
        zs_status status = authors_file_load(cases[i].file, &expert, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part)) fail_msg("%s: %d %s", cases[i].file, status, error.message);
    }
}

/// Pickles that are none, or more than tensors need.
static void test_pickles(void **state) {
    (void)state;
    static const char *const globals[] = {"collections.OrderedDict", "torch.FloatStorage", NULL};
    static const struct {
        const char *text;
        size_t size;
        zs_status status;
        const char *part;
    } cases[] = {
#define CASE(text, status, part) {(text), sizeof(text) - 1, (status), (part)}
        CASE("", ZS_ERROR_FORMAT, "ends too early"),
        CASE("\x80\x02", ZS_ERROR_FORMAT, "ends too early"),
        CASE("\x80\x04}.", ZS_ERROR_UNSUPPORTED, "protocol 4"),
        CASE(".", ZS_ERROR_FORMAT, "does not end with one value"),
        CASE("}}.", ZS_ERROR_FORMAT, "does not end with one value"),
        CASE("}(.", ZS_ERROR_FORMAT, "does not end with one value"),
        CASE("cos\nsystem\n.", ZS_ERROR_UNSUPPORTED, "asks for os.system"),
        CASE("cposix\nsystem\nX\2\0\0\0ls\x85R.", ZS_ERROR_UNSUPPORTED, "asks for posix.system"),
        CASE("ctorch.Float\nStorage\n.", ZS_ERROR_UNSUPPORTED, "torch.Float.Storage"),
        CASE("ctorch\nFloatStorage", ZS_ERROR_FORMAT, "ends too early"),
        CASE("}i.", ZS_ERROR_UNSUPPORTED, "opcode 0x69"),
        CASE("t.", ZS_ERROR_FORMAT, "a mark is missing"),
        CASE("u.", ZS_ERROR_FORMAT, "a mark is missing"),
        CASE("}(Ku.", ZS_ERROR_FORMAT, "does not end with one"),
        CASE("}(K\1u.", ZS_ERROR_FORMAT, "no dictionary"),
        CASE("](K\1u.", ZS_ERROR_FORMAT, "no dictionary"),
        CASE("}(K\1e.", ZS_ERROR_FORMAT, "no list"),
        CASE("(u.", ZS_ERROR_FORMAT, "the stack is empty"),
        CASE("K\1(\x86.", ZS_ERROR_FORMAT, "the stack is empty"), // not from below the mark
        CASE("(K\1R.", ZS_ERROR_FORMAT, "the stack is empty"),
        CASE("K\1)R.", ZS_ERROR_FORMAT, "is no function"),
        CASE("ccollections\nOrderedDict\nK\1R.", ZS_ERROR_FORMAT, "is no function"),
        CASE("ccollections\nOrderedDict\nK\1\x85R.", ZS_ERROR_FORMAT, "made of something"),
        CASE("]}b.", ZS_ERROR_FORMAT, "attributes"),
        CASE("b.", ZS_ERROR_FORMAT, "the stack is empty"),
        CASE("Q.", ZS_ERROR_FORMAT, "the stack is empty"),
        CASE("q\0.", ZS_ERROR_FORMAT, "the stack is empty"),
        CASE("h\0.", ZS_ERROR_FORMAT, "holds no such value"),
        CASE("}r\377\377\377\377.", ZS_ERROR_FORMAT, "absurd number in the memo"),
        CASE("X\377\377\377\377ab.", ZS_ERROR_FORMAT, "ends too early"),
        CASE("\x8a\x09"
             "123456789.",
             ZS_ERROR_FORMAT, "an absurd number"),
        CASE("G1234.", ZS_ERROR_FORMAT, "ends too early"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pickle p;
        zs_error error = {0};
        zs_status status = pickle_parse(cases[i].text, cases[i].size, globals, "x", &p, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part)) fail_msg("case %zu: %d '%s'", i, status, error.message);
    }
}

static void test_numbers(void **state) {
    (void)state;
    static const char text[] = "(K\377M\1\2J\376\377\377\377\x8a\1\200\x8a\0\x8a\2\377\0G\277\360\0\0\0\0\0\0NX\1\0\0\0at.";
    static const int64_t expected[] = {255, 513, -2, -128, 0, 255};
    pickle p;
    zs_error error;
    need(pickle_parse(text, sizeof text - 1, (const char *const[]){NULL}, "x", &p, &error), &error);
    assert_true(p.root->kind == PICKLE_TUPLE && p.root->count == 9);
    for (size_t i = 0; i < 6; i++) assert_int_equal(p.root->items[i]->integer, expected[i]);
    assert_true(p.root->items[6]->number == -1);
    assert_int_equal(p.root->items[7]->kind, PICKLE_NONE);
    assert_true(pickle_text_is(p.root->items[8], "a") && !pickle_text_is(p.root->items[8], "ab"));
    pickle_free(&p);
}

static void make_expert(expert_file *expert, expert_matrix *matrices, float (*values)[4]) {
    static char empty[] = "";
    static char names[6][64];
    static const char *const kinds[] = {"gate_proj", "up_proj", "down_proj"};
    for (uint32_t i = 0; i < 6; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%u.mlp.%s", i / 3, kinds[i % 3]);
        for (uint32_t r = 0; r < 4; r++) values[i][r] = fixture(i, r);
        matrices[i] = (expert_matrix){.name = names[i], .rank = 4, .values = values[i]};
    }
    *expert = (expert_file){.name = empty, .sigmoid = true, .trace = true, .max_mult = 1, .matrices = matrices, .matrix_count = 6};
}

static void test_round_trip(void **state) {
    (void)state;
    expert_matrix matrices[6];
    float values[6][4];
    expert_file expert, read;
    zs_error error = {0};
    make_expert(&expert, matrices, values);
    remove(output);
    for (int format = AUTHORS_POLICY; format <= AUTHORS_NAMES; format++) {
        torch_file file;
        need(authors_file_save(output, format > 0, (authors_format)format, &expert, &error), &error);
        need(authors_file_load(output, &read, &error), &error);
        check_fixture(&read);
        expert_file_free(&read);
        need(torch_open(output, &file, &error), &error);
        assert_int_equal(file.tensors[0].type, format == AUTHORS_POLICY ? TORCH_BFLOAT16 : TORCH_FLOAT);
        for (size_t i = 0; i < file.zip.count; i++) assert_int_equal(file.zip.entries[i].offset % 64, 0);
        torch_close(&file);
    }
    assert_int_equal(authors_file_save(output, false, AUTHORS_POLICY, &expert, &error), ZS_ERROR_EXISTS);
    assert_true(authors_file_fits_policy(&expert));
    expert.matrix_count = 5;
    assert_false(authors_file_fits_policy(&expert));
    expert.matrix_count = 3;
    expert.matrices += 1;
    assert_false(authors_file_fits_policy(&expert));
    assert_int_equal(authors_file_save(output, true, AUTHORS_POLICY, &expert, &error), ZS_ERROR_ARGUMENT);
    remove(output);
}

// ---- damage --------------------------------------------------------------------------------------------------------

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 16);
    assert_non_null(data);
    *size = fread(data, 1, 1 << 16, file);
    fclose(file);
    return data;
}

static zs_status open_any(const uint8_t *data, size_t size) {
    torch_file file;
    expert_file expert;
    zs_error error = {0};
    zs_status status = torch_open_memory(data, size, &file, &error);
    if (status) {
        assert_true(error.message[0] != '\0' && error.status == status);
        return status;
    }
    for (size_t i = 0; i < file.count; i++) {
        float *values = malloc((size_t)file.tensors[i].elements * sizeof *values + 1);
        assert_non_null(values);
        torch_read(&file.tensors[i], values);
        free(values);
    }
    torch_close(&file);
    status = authors_file_load_memory(data, size, &expert, &error);
    if (!status) expert_file_free(&expert);
    return ZS_OK;
}

static void damage(const char *path) {
    static const uint8_t flips[] = {0x01, 0x10, 0x80, 0xff};
    size_t size;
    uint8_t *whole = read_file(path, &size);
    guarded area;
    guarded_create(&area, size);
    assert_int_equal(open_any(guarded_place(&area, whole, size), size), ZS_OK);
    for (size_t cut = 0; cut < size; cut++) {
        if (open_any(guarded_place(&area, whole, cut), cut) == ZS_OK) fail_msg("%s cut to %zu of %zu bytes is accepted", path, cut, size);
    }
    for (size_t at = 0; at < size; at++) {
        for (size_t i = 0; i < sizeof flips; i++) {
            uint8_t *data = guarded_place(&area, whole, size);
            data[at] ^= flips[i];
            (void)open_any(data, size);
        }
    }
    guarded_destroy(&area);
    free(whole);
}

static void test_damage(void **state) {
    (void)state;
    damage(FIXTURES "policy_params.pt");
    damage(FIXTURES "deflated.pt");
    damage(FIXTURES "mix.pt");
    damage(FIXTURES "views.pt");
}

/// The same archive with some bytes of one of its parts replaced: what each check of the reader is for.
static void test_archives(void **state) {
    (void)state;
    static const char stored[] = FIXTURES "policy_params.pt", packed[] = FIXTURES "deflated.pt";
    static const struct {
        const char *file, *part; // the last place of these bytes (an entry of the directory is 46 bytes long before its name)
        size_t part_size;
        ptrdiff_t skip; // from there
        const char *bytes;
        size_t size;
        zs_status status;
        const char *message;
    } cases[] = {
        {stored, "PK\5\6", 4, 0, "PK\5\7", 4, ZS_ERROR_FORMAT, "no end record"},
        {stored, "PK\5\6", 4, 20, "\1", 1, ZS_ERROR_FORMAT, "no end record"}, // a comment that is not there
        {stored, "PK\6\6", 4, 0, "PK\6\5", 4, ZS_ERROR_FORMAT, "zip64 end record"},
        {stored, "PK\6\7", 4, 8, "\377\377\377\377\377\377\377\377", 8, ZS_ERROR_FORMAT, "zip64 end record"},
        {stored, "PK\6\6", 4, 16, "\1", 1, ZS_ERROR_UNSUPPORTED, "several parts"},
        {stored, "PK\6\6", 4, 32, "\1", 1, ZS_ERROR_UNSUPPORTED, "several parts"},
        {stored, "PK\6\6", 4, 48, "\377\377\377\377\377\377\377\377", 8, ZS_ERROR_FORMAT, "directory lies outside"},
        {stored, "PK\6\6", 4, 40, "\377\377\377\377\377\377\377\377", 8, ZS_ERROR_FORMAT, "directory lies outside"},
        {stored, "PK\6\6", 4, 24, "\377\377\377\377\377\377\377\177\377\377\377\377\377\377\377\177", 16, ZS_ERROR_FORMAT,
         "directory lies outside"},
        {stored, "PK\1\2", 4, 0, "PK\1\3", 4, ZS_ERROR_FORMAT, "is cut off"},
        {stored, "PK\1\2", 4, 28, "\377\377", 2, ZS_ERROR_FORMAT, "is cut off"},
        {stored, "PK\1\2", 4, 28, "\0\0", 2, ZS_ERROR_FORMAT, "no proper name"},
        {stored, "PK\1\2", 4, 8, "\1", 1, ZS_ERROR_UNSUPPORTED, "encrypted"},
        {stored, "PK\1\2", 4, 10, "\14", 1, ZS_ERROR_UNSUPPORTED, "method 12"},
        {stored, "PK\1\2", 4, 24, "\377\377\377\377", 4, ZS_ERROR_FORMAT, "zip64 sizes are missing"},
        {stored, "PK\1\2", 4, 24, "\1", 1, ZS_ERROR_FORMAT, "does not fit the archive"},
        {stored, "PK\1\2", 4, 20, "\377\377\377\177\377\377\377\177", 8, ZS_ERROR_FORMAT, "does not fit the archive"},
        {stored, "PK\1\2", 4, 42, "\377\377\377\177", 4, ZS_ERROR_FORMAT, "not where the directory says"},
        {stored, "PK\3\4", 4, 28, "\377\377", 2, ZS_ERROR_FORMAT, "does not fit the archive"},
        {stored, "policy_params/data/4", 20, 19, "5", 1, ZS_ERROR_FORMAT, "occurs twice"},
        {stored, "policy_params/data.pkl", 22, 18, "x", 1, ZS_ERROR_FORMAT, "holds no data.pkl"},
        {stored, "policy_params/data/4", 20, 19, "9", 1, ZS_ERROR_FORMAT, "the archive does not hold"},
        {stored, "3\nPK", 4, 0, "0", 1, ZS_ERROR_FORMAT, "checksum"},
        {packed, "policy_params/data/5", 20, -22, "\377\377\377\177", 4, ZS_ERROR_FORMAT, "too much for one archive"},
        {packed, "policy_params/data/5", 20, -22, "\377\377\377\0", 4, ZS_ERROR_FORMAT, "cannot hold"},
        {packed, "policy_params/data/5", 20, -22, "\1\0", 2, ZS_ERROR_FORMAT, "cannot be expanded"},
        {packed, "policy_params/data/5", 20, -30, "\1\2", 2, ZS_ERROR_FORMAT, "checksum"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size, at;
        uint8_t *data = read_file(cases[i].file, &size);
        zs_error error = {0};
        expert_file expert;
        for (at = size - cases[i].part_size; at > 0 && memcmp(data + at, cases[i].part, cases[i].part_size) != 0; at--) continue;
        memcpy(data + (ptrdiff_t)at + cases[i].skip, cases[i].bytes, cases[i].size);
        zs_status status = authors_file_load_memory(data, size, &expert, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].message)) fail_msg("case %zu: %d '%s'", i, status, error.message);
        free(data);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts), cmocka_unit_test(test_mix),        cmocka_unit_test(test_views),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_pickles),    cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_damage),  cmocka_unit_test(test_round_trip), cmocka_unit_test(test_archives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
