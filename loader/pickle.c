#include "loader/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// The stack machine. Each opcode makes at most one value, so the input's length bounds everything.
typedef struct machine {
    const uint8_t *data;
    size_t size, at;
    const char *const *globals;
    const char *path;
    zs_error *error;
    pickle *out;
    pickle_value **stack;
    size_t depth, stack_room;
    size_t *marks; // depths of the stack
    size_t mark_count, mark_room;
    pickle_value **memo;
    size_t memo_room;
} machine;

static zs_status damaged(const machine *m, const char *what) {
    return zs_error_set(m->error, ZS_ERROR_FORMAT, "%s: its pickle is damaged: %s at byte %zu", m->path, what, m->at);
}

static zs_status out_of_memory(const machine *m) {
    return zs_error_set(m->error, ZS_ERROR_MEMORY, "out of memory while reading %s", m->path);
}

/// Room for one more of `size` bytes each; false when memory runs out.
static bool grow(void **array, size_t count, size_t *room, size_t size) {
    if (count < *room) return true;
    size_t wanted = *room ? 2 * *room : 16;
    void *grown = realloc(*array, wanted * size);
    if (!grown) return false;
    *array = grown;
    *room = wanted;
    return true;
}

static zs_status push(machine *m, pickle_value *value) {
    void *stack = m->stack;
    bool room = grow(&stack, m->depth, &m->stack_room, sizeof *m->stack);
    m->stack = stack;
    if (!room) return out_of_memory(m);
    m->stack[m->depth++] = value;
    return ZS_OK;
}

/// A new value on the stack, zero but for its kind.
static zs_status push_new(machine *m, pickle_kind kind, pickle_value **value) {
    *value = calloc(1, sizeof **value);
    if (!*value) return out_of_memory(m);
    (*value)->kind = kind;
    (*value)->next = m->out->first;
    m->out->first = *value;
    return push(m, *value);
}

static zs_status push_integer(machine *m, pickle_kind kind, int64_t integer) {
    pickle_value *value;
    zs_status status = push_new(m, kind, &value);
    if (!status) value->integer = integer;
    return status;
}

/// What lies above the last mark.
static size_t available(const machine *m) { return m->depth - (m->mark_count ? m->marks[m->mark_count - 1] : 0); }

static zs_status take(machine *m, size_t bytes, const uint8_t **data) {
    if (bytes > m->size - m->at) return damaged(m, "it ends too early");
    *data = m->data + m->at;
    m->at += bytes;
    return ZS_OK;
}

static zs_status take_number(machine *m, uint32_t bytes, uint64_t *number) {
    const uint8_t *data = NULL;
    zs_status status = take(m, bytes, &data);
    *number = 0;
    for (uint32_t i = 0; i < bytes && !status; i++) *number |= (uint64_t)data[i] << 8 * i;
    return status;
}

// ---- opcodes -------------------------------------------------------------------------------------------------------

static zs_status set_mark(machine *m) {
    void *marks = m->marks;
    bool room = grow(&marks, m->mark_count, &m->mark_room, sizeof *m->marks);
    m->marks = marks;
    if (!room) return out_of_memory(m);
    m->marks[m->mark_count++] = m->depth;
    return ZS_OK;
}

static zs_status append(machine *m, pickle_value *to, pickle_value *item) {
    void *items = to->items;
    bool room = grow(&items, to->count, &to->capacity, sizeof(pickle_value *));
    to->items = items;
    if (!room) return out_of_memory(m);
    to->items[to->count++] = item;
    return ZS_OK;
}

/// The last `count` values become one of a kind.
static zs_status gather(machine *m, pickle_kind kind, size_t count) {
    if (available(m) < count) return damaged(m, "the stack is empty");
    pickle_value *value;
    size_t first = m->depth - count;
    zs_status status = push_new(m, kind, &value);
    for (size_t i = first; i < first + count && !status; i++) status = append(m, value, m->stack[i]);
    if (status) return status;
    m->stack[first] = value;
    m->depth = first + 1;
    return ZS_OK;
}

static zs_status gather_from_mark(machine *m, pickle_kind kind) {
    if (m->mark_count == 0) return damaged(m, "a mark is missing");
    size_t count = available(m);
    zs_status status = gather(m, kind, count);
    if (!status) m->mark_count--;
    return status;
}

/// The values above the last mark, or the last `count`, go into the list or dictionary below them.
static zs_status put_items(machine *m, pickle_kind kind, bool marked, size_t count) {
    if (marked) {
        if (m->mark_count == 0) return damaged(m, "a mark is missing");
        count = available(m);
        m->mark_count--;
    }
    if (available(m) < count + 1) return damaged(m, "the stack is empty");
    size_t first = m->depth - count;
    pickle_value *to = m->stack[first - 1];
    if (to->kind != kind || (kind == PICKLE_DICT && count % 2))
        return damaged(m, kind == PICKLE_DICT ? "this is no dictionary" : "this is no list");
    zs_status status = ZS_OK;
    for (size_t i = first; i < m->depth && !status; i++) status = append(m, to, m->stack[i]);
    m->depth = first;
    return status;
}

static zs_status remember(machine *m, uint64_t index) {
    if (available(m) == 0) return damaged(m, "the stack is empty");
    if (index >= m->size) return damaged(m, "an absurd number in the memo");
    if (index >= m->memo_room) {
        size_t room = (size_t)index + 1 > 2 * m->memo_room ? (size_t)index + 1 : 2 * m->memo_room;
        pickle_value **grown = realloc(m->memo, room * sizeof *grown);
        if (!grown) return out_of_memory(m);
        memset(grown + m->memo_room, 0, (room - m->memo_room) * sizeof *grown);
        m->memo = grown;
        m->memo_room = room;
    }
    m->memo[index] = m->stack[m->depth - 1];
    return ZS_OK;
}

static zs_status recall(machine *m, uint64_t index) {
    if (index >= m->memo_room || !m->memo[index]) return damaged(m, "the memo holds no such value");
    return push(m, m->memo[index]);
}

static zs_status read_memo(machine *m, uint32_t bytes, bool put) {
    uint64_t index;
    zs_status status = take_number(m, bytes, &index);
    if (status) return status;
    return put ? remember(m, index) : recall(m, index);
}

static zs_status read_text(machine *m) {
    uint64_t size;
    const uint8_t *text = NULL;
    pickle_value *value;
    zs_status status = take_number(m, 4, &size);
    if (!status) status = take(m, (size_t)size, &text);
    if (!status) status = push_new(m, PICKLE_TEXT, &value);
    if (status) return status;
    value->text = (const char *)text;
    value->text_size = (size_t)size;
    return ZS_OK;
}

/// One line without its end; pickles keep names so.
static zs_status read_line(machine *m, const char **line, size_t *size) {
    const uint8_t *from = m->data + m->at, *end = m->at < m->size ? memchr(from, '\n', m->size - m->at) : NULL;
    if (!end) return damaged(m, "it ends too early");
    *line = (const char *)from;
    *size = (size_t)(end - from);
    m->at += *size + 1;
    return ZS_OK;
}

static zs_status read_global(machine *m) {
    const char *module = "", *name = "";
    size_t module_size = 0, name_size = 0;
    zs_status status = read_line(m, &module, &module_size);
    if (!status) status = read_line(m, &name, &name_size);
    if (status) return status;
    for (const char *const *g = m->globals; *g; g++) {
        pickle_value *value;
        if (strlen(*g) != module_size + 1 + name_size || memcmp(*g, module, module_size) != 0 || (*g)[module_size] != '.' ||
            memcmp(*g + module_size + 1, name, name_size) != 0)
            continue;
        status = push_new(m, PICKLE_GLOBAL, &value);
        if (!status) value->text = *g;
        return status;
    }
    return zs_error_set(m->error, ZS_ERROR_UNSUPPORTED,
                        "%s: its pickle asks for %.*s.%.*s, which is nothing that tensors need: it is not read", m->path,
                        (int)(module_size < 100 ? module_size : 100), module, (int)(name_size < 100 ? name_size : 100), name);
}

static zs_status reduce(machine *m) {
    if (available(m) < 2) return damaged(m, "the stack is empty");
    const pickle_value *callee = m->stack[m->depth - 2], *arguments = m->stack[m->depth - 1];
    if (callee->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE) return damaged(m, "something is called that is no function");
    if (strcmp(callee->text, "collections.OrderedDict") != 0) return gather(m, PICKLE_CALL, 2);
    if (arguments->count) return damaged(m, "an OrderedDict is made of something");
    m->depth -= 2;
    pickle_value *value;
    return push_new(m, PICKLE_DICT, &value);
}

/// Attributes of a dictionary (a state_dict has its modules' versions there) are no part of its contents.
static zs_status build(machine *m) {
    if (available(m) < 2) return damaged(m, "the stack is empty");
    if (m->stack[m->depth - 2]->kind != PICKLE_DICT) return damaged(m, "attributes of something that is no dictionary");
    m->depth--;
    return ZS_OK;
}

static zs_status read_integer(machine *m, uint32_t bytes) {
    uint64_t number;
    zs_status status = take_number(m, bytes, &number);
    if (status) return status;
    bool negative = bytes == 4 && number >> 31; // of one and two bytes they have no sign
    return push_integer(m, PICKLE_INT, negative ? (int64_t)number - ((int64_t)1 << 32) : (int64_t)number);
}

static zs_status read_long(machine *m) {
    uint64_t bytes, number = 0;
    zs_status status = take_number(m, 1, &bytes);
    if (!status && bytes > 8) return damaged(m, "an absurd number");
    if (!status) status = take_number(m, (uint32_t)bytes, &number);
    if (status) return status;
    if (bytes > 0 && bytes < 8 && number >> (8 * bytes - 1)) number |= UINT64_MAX << 8 * bytes;
    int64_t integer;
    memcpy(&integer, &number, sizeof integer);
    return push_integer(m, PICKLE_INT, integer);
}

static zs_status read_float(machine *m) {
    const uint8_t *data = NULL;
    pickle_value *value;
    uint64_t bits = 0;
    zs_status status = take(m, 8, &data);
    if (!status) status = push_new(m, PICKLE_FLOAT, &value);
    if (status) return status;
    for (uint32_t i = 0; i < 8; i++) bits = bits << 8 | data[i];
    memcpy(&value->number, &bits, sizeof value->number);
    return ZS_OK;
}

static zs_status read_protocol(machine *m) {
    uint64_t protocol;
    zs_status status = take_number(m, 1, &protocol);
    if (status || protocol == 2) return status;
    return zs_error_set(m->error, ZS_ERROR_UNSUPPORTED, "%s: a pickle of protocol %u; torch.save's own is 2", m->path, (unsigned)protocol);
}

static zs_status run_one(machine *m, uint8_t opcode) {
    pickle_value *value;
    switch (opcode) {
    case 0x80: return read_protocol(m);
    case '(': return set_mark(m);
    case '}': return push_new(m, PICKLE_DICT, &value);
    case ']': return push_new(m, PICKLE_LIST, &value);
    case ')': return push_new(m, PICKLE_TUPLE, &value);
    case 'N': return push_new(m, PICKLE_NONE, &value);
    case 0x88: return push_integer(m, PICKLE_BOOL, 1);
    case 0x89: return push_integer(m, PICKLE_BOOL, 0);
    case 'K': return read_integer(m, 1);
    case 'M': return read_integer(m, 2);
    case 'J': return read_integer(m, 4);
    case 0x8a: return read_long(m);
    case 'G': return read_float(m);
    case 'X': return read_text(m);
    case 'c': return read_global(m);
    case 't': return gather_from_mark(m, PICKLE_TUPLE);
    case 0x85: return gather(m, PICKLE_TUPLE, 1);
    case 0x86: return gather(m, PICKLE_TUPLE, 2);
    case 0x87: return gather(m, PICKLE_TUPLE, 3);
    case 'a': return put_items(m, PICKLE_LIST, false, 1);
    case 'e': return put_items(m, PICKLE_LIST, true, 0);
    case 's': return put_items(m, PICKLE_DICT, false, 2);
    case 'u': return put_items(m, PICKLE_DICT, true, 0);
    case 'q': return read_memo(m, 1, true);
    case 'r': return read_memo(m, 4, true);
    case 'h': return read_memo(m, 1, false);
    case 'j': return read_memo(m, 4, false);
    case 'Q': return gather(m, PICKLE_PERSISTENT, 1);
    case 'R': return reduce(m);
    case 'b': return build(m);
    default:
        return zs_error_set(m->error, ZS_ERROR_UNSUPPORTED, "%s: its pickle has opcode 0x%02x at byte %zu, which tensors do not need",
                            m->path, opcode, m->at - 1);
    }
}

static zs_status run(machine *m) {
    for (;;) {
        const uint8_t *opcode = NULL;
        zs_status status = take(m, 1, &opcode);
        if (status) return status;
        if (*opcode == '.') break;
        status = run_one(m, *opcode);
        if (status) return status;
    }
    if (m->depth != 1 || m->mark_count) return damaged(m, "it does not end with one value");
    m->out->root = m->stack[0];
    return ZS_OK;
}

zs_status pickle_parse(const void *data, size_t size, const char *const *globals, const char *path, pickle *out, zs_error *error) {
    *out = (pickle){0};
    machine m = {.data = data, .size = size, .globals = globals, .path = path, .error = error, .out = out};
    zs_status status = run(&m);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    if (status) pickle_free(out);
    return status;
}

void pickle_free(pickle *p) {
    for (pickle_value *value = p->first, *next; value; value = next) {
        next = value->next;
        free(value->items);
        free(value);
    }
    *p = (pickle){0};
}

bool pickle_text_is(const pickle_value *value, const char *text) {
    return value->kind == PICKLE_TEXT && strlen(text) == value->text_size && memcmp(value->text, text, value->text_size) == 0;
}
