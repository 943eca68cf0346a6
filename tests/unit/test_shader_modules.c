/// Reads every embedded SPIR-V module and compares what it says of itself with the variant table: push constants, specialisation
/// ids, capabilities, shared memory, workgroup size.
#include "shaders/modules.h"
#include "zsigma/zsigma.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SHARED_LIMIT = 16 << 10, INVOCATION_LIMIT = 128, MODULE_BUDGET = 200, BYTE_BUDGET = 3 << 20, MAX_CONSTANTS = 32 };

/// Numbers from the SPIR-V specification.
enum {
    OP_EXECUTION_MODE = 16,
    OP_CAPABILITY = 17,
    OP_TYPE_BOOL = 20,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_MATRIX = 24,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT_TRUE = 41,
    OP_CONSTANT_FALSE = 42,
    OP_CONSTANT = 43,
    OP_SPEC_CONSTANT_TRUE = 48,
    OP_SPEC_CONSTANT_FALSE = 49,
    OP_SPEC_CONSTANT = 50,
    OP_SPEC_CONSTANT_COMPOSITE = 51,
    OP_SPEC_CONSTANT_OP = 52,
    OP_VARIABLE = 59,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,
    OP_EXECUTION_MODE_ID = 331,
    DECORATION_SPEC_ID = 1,
    DECORATION_BUILT_IN = 11,
    DECORATION_OFFSET = 35,
    BUILT_IN_WORKGROUP_SIZE = 25,
    MODE_LOCAL_SIZE = 17,
    MODE_LOCAL_SIZE_ID = 38,
    STORAGE_WORKGROUP = 4,
    STORAGE_PUSH_CONSTANT = 9,
    STORAGE_PHYSICAL = 5349,
};

/// One instruction: words[0] holds its length and opcode.
typedef struct instruction {
    const uint32_t *words;
    uint32_t opcode, length;
} instruction;

typedef struct module {
    const shader_module *source;
    size_t word_count;
    uint32_t bound;
    const uint32_t **definitions; // by id: the instruction that makes it
} module;

/// Steps over the instructions from word 5; false at the end.
static bool next_instruction(const module *m, size_t *at, instruction *i) {
    if (*at == 0) *at = 5;
    if (*at >= m->word_count) return false;
    i->words = m->source->words + *at;
    i->opcode = i->words[0] & 0xffff;
    i->length = i->words[0] >> 16;
    assert_true(i->length > 0 && *at + i->length <= m->word_count);
    *at += i->length;
    return true;
}

/// Word of an instruction that holds its result id; 0: none that matters here.
static uint32_t result_word(uint32_t opcode) {
    if (opcode >= 19 && opcode <= 38) return 1; // types
    bool constant = opcode >= OP_CONSTANT_TRUE && opcode <= OP_SPEC_CONSTANT_OP;
    return constant || opcode == OP_VARIABLE ? 2 : 0;
}

static module open_module(const shader_module *source) {
    module m = {.source = source, .word_count = source->size / 4};
    assert_true(m.word_count > 5);
    assert_int_equal(source->words[0], 0x07230203);
    m.bound = source->words[3];
    m.definitions = calloc(m.bound, sizeof *m.definitions);
    assert_non_null(m.definitions);
    size_t at = 0;
    instruction i;
    while (next_instruction(&m, &at, &i)) {
        uint32_t word = result_word(i.opcode);
        if (word && word < i.length) m.definitions[i.words[word]] = i.words;
    }
    return m;
}

static void close_module(module *m) { free(m->definitions); }

static const uint32_t *definition(const module *m, uint32_t id) {
    assert_true(id < m->bound);
    if (m->definitions[id] == NULL) fail_msg("%s: id %u is not defined", m->source->name, id);
    return m->definitions[id];
}

static uint32_t opcode_of(const uint32_t *words) { return words[0] & 0xffff; }

// ---- constants, with specialisation constants at their defaults -------------------------------------------------------

static uint64_t constant_value(const module *m, uint32_t id);

static uint64_t fold(const module *m, const uint32_t *words) {
    uint64_t a = constant_value(m, words[4]),
             b = opcode_of(words) == OP_SPEC_CONSTANT_OP && words[0] >> 16 > 5 ? constant_value(m, words[5]) : 0;
    switch (words[3]) {
    case 128: return (uint32_t)(a + b);                   // IAdd
    case 130: return (uint32_t)(a - b);                   // ISub
    case 132: return (uint32_t)(a * b);                   // IMul
    case 134: return b ? a / b : 0;                       // UDiv
    case 137: return b ? a % b : 0;                       // UMod
    case 164: return a == b;                              // LogicalEqual
    case 166: return a || b;                              // LogicalOr
    case 167: return a && b;                              // LogicalAnd
    case 168: return !a;                                  // LogicalNot
    case 169: return a ? b : constant_value(m, words[6]); // Select
    case 170: return a == b;                              // IEqual
    case 171: return a != b;                              // INotEqual
    case 172: return a > b;                               // UGreaterThan
    case 174: return a >= b;                              // UGreaterThanEqual
    case 176: return a < b;                               // ULessThan
    case 178: return a <= b;                              // ULessThanEqual
    case 194: return (uint32_t)a >> b;                    // ShiftRightLogical
    case 196: return (uint32_t)((uint64_t)a << b);        // ShiftLeftLogical
    case 199: return a & b;                               // BitwiseAnd
    default: fail_msg("%s: specialisation operation %u is unknown to this test", m->source->name, words[3]); return 0;
    }
}

static uint64_t constant_value(const module *m, uint32_t id) {
    const uint32_t *words = definition(m, id);
    switch (opcode_of(words)) {
    case OP_CONSTANT_TRUE:
    case OP_SPEC_CONSTANT_TRUE: return 1;
    case OP_CONSTANT_FALSE:
    case OP_SPEC_CONSTANT_FALSE: return 0;
    case OP_CONSTANT:
    case OP_SPEC_CONSTANT: return words[3];
    case OP_SPEC_CONSTANT_OP: return fold(m, words);
    default: fail_msg("%s: id %u is no scalar constant", m->source->name, id); return 0;
    }
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

/// Offset of a struct's member by its decoration; the running end where it has none (shared memory).
static uint64_t member_offset(const module *m, uint32_t type, uint32_t member, uint64_t end) {
    size_t at = 0;
    instruction i;
    while (next_instruction(m, &at, &i))
        if (i.opcode == OP_MEMBER_DECORATE && i.words[1] == type && i.words[2] == member && i.words[3] == DECORATION_OFFSET)
            return i.words[4];
    return end;
}

static uint64_t type_bytes(const module *m, uint32_t type) {
    const uint32_t *words = definition(m, type);
    uint64_t end = 0;
    switch (opcode_of(words)) {
    case OP_TYPE_BOOL: return 4;
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT: return words[2] / 8;
    case OP_TYPE_VECTOR:
    case OP_TYPE_MATRIX: return words[3] * type_bytes(m, words[2]);
    case OP_TYPE_ARRAY: return constant_value(m, words[3]) * type_bytes(m, words[2]);
    case OP_TYPE_POINTER: assert_int_equal(words[2], STORAGE_PHYSICAL); return 8;
    case OP_TYPE_STRUCT:
        for (uint32_t i = 2; i < words[0] >> 16; i++) end = member_offset(m, type, i - 2, end) + type_bytes(m, words[i]);
        return end;
    default: fail_msg("%s: type %u of opcode %u", m->source->name, type, opcode_of(words)); return 0;
    }
}

/// Bytes of all variables of a storage class.
static uint64_t storage_bytes(const module *m, uint32_t storage) {
    uint64_t bytes = 0;
    size_t at = 0;
    instruction i;
    while (next_instruction(m, &at, &i))
        if (i.opcode == OP_VARIABLE && i.words[3] == storage) bytes += type_bytes(m, definition(m, i.words[1])[3]);
    return bytes;
}

// ---- tests ----------------------------------------------------------------------------------------------------------

static void each_module(void (*check)(const module *m)) {
    for (uint32_t i = 0; i < SHADER_COUNT; i++) {
        if (shader_modules[i].size == sizeof(uint32_t)) continue; // left out of this build (ZSIGMA_MATRIX2)
        module m = open_module(&shader_modules[i]);
        check(&m);
        close_module(&m);
    }
}

/// The C struct may end in padding up to its alignment of 8.
static void check_push(const module *m) {
    uint64_t bytes = (storage_bytes(m, STORAGE_PUSH_CONSTANT) + 7) / 8 * 8;
    if (bytes != m->source->push_size || bytes > 128)
        fail_msg("%s: push constants of %llu bytes, %u in the table", m->source->name, (unsigned long long)bytes, m->source->push_size);
}

static void check_constants(const module *m) {
    bool used[MAX_CONSTANTS] = {false};
    uint32_t count = 0;
    size_t at = 0;
    instruction i;
    while (next_instruction(m, &at, &i)) {
        if (i.opcode != OP_DECORATE || i.words[2] != DECORATION_SPEC_ID) continue;
        uint32_t id = i.words[3];
        // local_size_x_id and WORKGROUP share id 0.
        if (id >= MAX_CONSTANTS || (used[id] && id != 0)) fail_msg("%s: specialisation id %u", m->source->name, id);
        count += !used[id];
        used[id] = true;
    }
    for (uint32_t id = 0; id < count; id++)
        if (!used[id]) fail_msg("%s: %u specialisation constants, but none has id %u", m->source->name, count, id);
    if (count == 0) fail_msg("%s: constant 0 must be the workgroup size", m->source->name);
}

static bool is_allowed(uint32_t capability, uint32_t tiers) {
    static const struct {
        uint32_t first, last, tier; // capability numbers; tier 0: baseline
    } allowed[] = {
        {0, 1, 0},                                      // Matrix, Shader
        {5345, 5345, 0},                                // VulkanMemoryModel
        {5347, 5347, 0},                                // PhysicalStorageBufferAddresses
        {61, 68, ZS_TIER_SUBGROUP},                     // GroupNonUniform…
        {4433, 4434, ZS_TIER_STORAGE},                  // 16-bit storage
        {4448, 4449, ZS_TIER_STORAGE},                  // 8-bit storage
        {11, 11, ZS_TIER_STORAGE},                      // Int64, in kernels for CPU drivers
        {9, 9, ZS_TIER_HALF},                           // Float16
        {6016, 6019, ZS_TIER_DOT},                      // DotProduct…
        {39, 39, ZS_TIER_DOT},                          // Int8
        {6022, 6022, ZS_TIER_MATRIX | ZS_TIER_MATRIX2}, // CooperativeMatrixKHR
        {5430, 5439, ZS_TIER_MATRIX2},                  // CooperativeMatrix…NV
    };
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        if (capability >= allowed[i].first && capability <= allowed[i].last) return allowed[i].tier == 0 || (allowed[i].tier & tiers);
    return false;
}

static void check_capabilities(const module *m) {
    size_t at = 0;
    instruction i;
    while (next_instruction(m, &at, &i))
        if (i.opcode == OP_CAPABILITY && !is_allowed(i.words[1], m->source->tiers))
            fail_msg("%s: capability %u is beyond its tiers (%#x)", m->source->name, i.words[1], m->source->tiers);
}

static void check_shared(const module *m) {
    uint64_t bytes = storage_bytes(m, STORAGE_WORKGROUP);
    if (bytes > SHARED_LIMIT) fail_msg("%s: %llu bytes of shared memory", m->source->name, (unsigned long long)bytes);
}

/// Invocations of a workgroup, however the module says it: literally, by ids, or by a built-in constant.
static uint64_t local_size(const module *m) {
    uint64_t size = 0;
    size_t at = 0;
    instruction i;
    while (next_instruction(m, &at, &i)) {
        if (i.opcode == OP_EXECUTION_MODE && i.words[2] == MODE_LOCAL_SIZE && size == 0)
            size = (uint64_t)i.words[3] * i.words[4] * i.words[5];
        if (i.opcode == OP_EXECUTION_MODE_ID && i.words[2] == MODE_LOCAL_SIZE_ID)
            size = constant_value(m, i.words[3]) * constant_value(m, i.words[4]) * constant_value(m, i.words[5]);
        if (i.opcode == OP_DECORATE && i.words[2] == DECORATION_BUILT_IN && i.words[3] == BUILT_IN_WORKGROUP_SIZE) {
            const uint32_t *words = definition(m, i.words[1]);
            return constant_value(m, words[3]) * constant_value(m, words[4]) * constant_value(m, words[5]);
        }
    }
    return size;
}

static void check_local_size(const module *m) {
    uint64_t size = local_size(m);
    if (size == 0 || size > INVOCATION_LIMIT) fail_msg("%s: %llu invocations in a workgroup", m->source->name, (unsigned long long)size);
}

static void push_constants_match_the_table(void **state) {
    (void)state;
    each_module(check_push);
}

static void specialisation_ids_are_contiguous(void **state) {
    (void)state;
    each_module(check_constants);
}

static void capabilities_stay_within_tiers(void **state) {
    (void)state;
    each_module(check_capabilities);
}

static void shared_memory_is_bounded(void **state) {
    (void)state;
    each_module(check_shared);
}

static void workgroups_are_bounded(void **state) {
    (void)state;
    each_module(check_local_size);
}

static void names_are_unique_and_budget_holds(void **state) {
    (void)state;
    size_t bytes = 0;
    for (uint32_t i = 0; i < SHADER_COUNT; i++) {
        bytes += shader_modules[i].size;
        for (uint32_t j = 0; j < i; j++) assert_string_not_equal(shader_modules[i].name, shader_modules[j].name);
    }
    print_message("SPIR-V: %d of at most %d modules, %zu of at most %d bytes\n", SHADER_COUNT, MODULE_BUDGET, bytes, BYTE_BUDGET);
    assert_in_range(SHADER_COUNT, 1, MODULE_BUDGET);
    assert_true(bytes <= BYTE_BUDGET);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(push_constants_match_the_table), cmocka_unit_test(specialisation_ids_are_contiguous),
        cmocka_unit_test(capabilities_stay_within_tiers), cmocka_unit_test(shared_memory_is_bounded),
        cmocka_unit_test(workgroups_are_bounded),         cmocka_unit_test(names_are_unique_and_budget_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
