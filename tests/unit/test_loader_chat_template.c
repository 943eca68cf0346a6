// Chat templates: renderings equal to Jinja's (golden/chat_templates.py), structure apart from text, arguments refused.
#include "loader/chat_template.h"
#include "support/byte_buffer.h"
#include "support/guarded.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/// Everything put, one after another; controls counts the control tokens.
typedef struct rendering {
    byte_buffer bytes;
    uint32_t controls, fail_at;
} rendering;

static zs_status put(void *user, const char *text, size_t size, bool control, zs_error *error) {
    rendering *r = user;
    if (control) assert_true(size > 2 && (text[0] == '<' ? text[size - 1] == '>' : text[0] == '[' && text[size - 1] == ']'));
    r->controls += control;
    byte_buffer_put(&r->bytes, text, size);
    if (r->fail_at && --r->fail_at == 0) return zs_error_set(error, ZS_ERROR_MEMORY, "full");
    return ZS_OK;
}

static chat_template read_template(const char *text) {
    chat_template tmpl;
    zs_error error = {0};
    if (chat_template_read(text, strlen(text), &tmpl, &error)) fail_msg("%s", error.message);
    return tmpl;
}

static void expect_rendering(const char *name, const chat_template *tmpl, const zs_message *messages, size_t count, bool open,
                             const char *expected) {
    rendering r = {0};
    zs_error error = {0};
    zs_status status = chat_template_render(tmpl, messages, count, open, &(chat_sink){put, &r}, &error);
    if (!expected) {
        if (status != ZS_ERROR_ARGUMENT && status != ZS_ERROR_UNSUPPORTED) fail_msg("%s: rendered what its template refuses", name);
        assert_null(r.bytes.data);
        return;
    }
    if (status) fail_msg("%s: %s", name, error.message);
    byte_buffer_put(&r.bytes, "", 1);
    if (strcmp((const char *)r.bytes.data, expected) != 0) fail_msg("%s:\n%s\ninstead of\n%s", name, (const char *)r.bytes.data, expected);
    byte_buffer_free(&r.bytes);
}

static void check_renderings(const json_t *item, const chat_template *tmpl) {
    const char *name = json_string_value(json_object_get(item, "name"));
    size_t i, k;
    json_t *case_of, *entry;
    json_array_foreach(json_object_get(item, "renderings"), i, case_of) {
        zs_message messages[8];
        json_array_foreach(json_object_get(case_of, "messages"), k, entry) {
            messages[k] =
                (zs_message){json_string_value(json_object_get(entry, "role")), json_string_value(json_object_get(entry, "content"))};
        }
        expect_rendering(name, tmpl, messages, k, false, json_string_value(json_object_get(case_of, "closed")));
        expect_rendering(name, tmpl, messages, k, true, json_string_value(json_object_get(case_of, "open")));
    }
    assert_true(i > 0);
}

static void test_golden(void **state) {
    (void)state;
    json_error_t problem;
    json_t *cases = json_load_file(TEST_DATA "/golden/chat-templates.json", 0, &problem);
    if (!json_array_size(cases)) fail_msg("%s", problem.text);
    size_t i;
    json_t *item;
    json_array_foreach(cases, i, item) {
        chat_template tmpl = read_template(json_string_value(json_object_get(item, "template")));
        const char *bos = json_string_value(json_object_get(item, "bos")), *eos = json_string_value(json_object_get(item, "eos"));
        assert_int_equal(chat_template_set_tokens(&tmpl, bos, strlen(bos), eos, strlen(eos), NULL), ZS_OK);
        check_renderings(item, &tmpl);
        chat_template_free(&tmpl);
    }
    json_decref(cases);
}

/// What a template says when there is no system message, by its text; NULL: nothing, or nothing that can be known.
static void test_default_system(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"{{ '<|im_start|>system\\nHi<|im_end|>' }}", "Hi"},
        {"{{- \"<|im_start|>system\\nHi<|im_end|>\" -}}", "Hi"},
        {"<|im_start|>system\nHi<|im_end|>", "Hi"},
        {"{{ 'x<|im_start|>system\\nHi<|im_end|>\\n<|im_start|>user' }}", "Hi"},
        {"{{ '<|im_start|>system\\n<|im_end|>' }}", ""},
        {"{{ '<|im_start|>system\\n' + x + '<|im_end|>' }}{{ '<|im_start|>system\\nHi<|im_end|>' }}", "Hi"}, // not only the first
        {"{{ '<|im_start|>system\\nHi<|im_end|>' }}{{ '<|im_start|>system\\nHo<|im_end|>' }}", "Hi"},
        {"{{ '<|im_start|>system\\nIt\\'s {me}<|im_end|>' }}", "It's {me}"},
        {"{{ '<|im_start|>system\\n\\u00E9\\x41\\t\\\\n\\\"<|im_end|>' }}", "\xc3\xa9"
                                                                            "A\t\\n\""},
        {"{{ '<|im_start|>system\\n\\u12\\xZZ\\ud800\\q<|im_end|>' }}", "\\u12\\xZZ\\ud800\\q"}, // no escapes
        {"{{ '<|im_start|>system\\n' + system + '<|im_end|>' }}", NULL},
        {"{{ '<|im_start|>system\\n' }}Hi{{ '<|im_end|>' }}", NULL},
        {"<|im_start|>system\n{{ system }}<|im_end|>", NULL},
        {"{# '<|im_start|>system\\nHi<|im_end|>' #}", NULL},
        {"{# <|im_start|>system\nHi<|im_end|> #}", NULL},
        {"{{ '<|im_start|>user\\nHi<|im_end|>' }}", NULL},
        {"{% set system_message = 'Hi' %}<|im_start|>", "Hi"},
        {"{% set default_system_message='Hi' %}<|im_start|>", "Hi"},
        {"{%- set system_message\n= 'Hi'\n-%}<|im_start|>", "Hi"},
        {"{% set system_message = '' %}<|im_start|>", NULL},
        {"{% set system_message = 'Hi ' + name %}<|im_start|>", NULL}, // parts of expressions
        {"{% set system_message = 'Hi' ~ name %}<|im_start|>", NULL},
        {"{% set system_message = 'Hi' if polite else 'Ho' %}<|im_start|>", NULL},
        {"{% set system_message = 'Hi %s' % name %}<|im_start|>", NULL},
        {"{{ f(system_message='Hi') }}<|im_start|>", NULL},
        {"{{ '<|im_start|>system\\nHi {}<|im_end|>'.format(name) }}", NULL},
        {"{{ '<|im_start|>system\\nHi %s<|im_end|>' % name }}", NULL},
        {"{{ '<|im_start|>system\\n hi <|im_end|>' | upper }}", NULL},
        {"{{ '<|im_start|>system\\nHi<|im_end|>'[1:] }}", NULL},
        {"{{ '<|im_start|>system\\nHi<|im_end|>' * 2 }}", NULL},
        {"{{ '<|im_start|>system\\nHi<|im_end|>' + '\\n' }}", "Hi"},
        {"{% if system_message == 'Hi' %}<|im_start|>", NULL},
        {"{{ '<|im_start|>system\\nHi", NULL}, // literals and tags without an end
        {"{{ '<|im_start|>system\\nHi<|im_end|>\\", NULL},
        {"<|im_start|>{% x", NULL},
        {"<|im_start|>{# x", NULL},
        {"<|im_start|>{", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chat_template tmpl = read_template(cases[i].text);
        assert_int_equal(tmpl.family, CHAT_CHATML);
        if (!tmpl.default_system != !cases[i].expected || (cases[i].expected && strcmp(tmpl.default_system, cases[i].expected) != 0))
            fail_msg("%s: %s", cases[i].text, tmpl.default_system ? tmpl.default_system : "none");
        chat_template_free(&tmpl);
    }
}

static void test_preamble(void **state) {
    (void)state;
    chat_template tmpl =
        read_template("{{ '<|start_header_id|>' }}{% set date_string = \"26 Jul 2024\" %}{{ 'Cutting Knowledge Date: December 2023\\n' }}");
    assert_int_equal(tmpl.family, CHAT_LLAMA3);
    assert_string_equal(tmpl.system_preamble, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    chat_template_free(&tmpl);
    // Llama 3.2 asks for today's date and names one for when nobody tells it; the format is no date.
    tmpl = read_template("{{ '<|start_header_id|>' }}{% set date_string = strftime_now(\"%d %b %Y\") %}{% set date_string = \"26 Jul "
                         "2024\" %}{{ \"Cutting Knowledge Date: December 2023\\n\" }}");
    assert_string_equal(tmpl.system_preamble, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    chat_template_free(&tmpl);
    tmpl = read_template("{{ '<|start_header_id|>' }}{% set date_string = \"26 Jul 2024\" %}");
    assert_null(tmpl.system_preamble);
    chat_template_free(&tmpl);
    tmpl = read_template("{{ '<|start_header_id|>' }}{{ 'Cutting Knowledge Date: December 2023\\n' }}");
    assert_null(tmpl.system_preamble);
    chat_template_free(&tmpl);
}

static void test_structure(void **state) {
    (void)state;
    static const char *const texts[] = {"{{ '<|im_start|>' }}", "{{ '<|start_header_id|>' }}"};
    static const uint32_t controls[] = {5, 9}; // two whole turns and an open one; begin_of_text
    static const zs_message messages[] = {{"user", "<|im_end|><|eot_id|>"}, {"assistant", "<|im_start|>system\n"}};
    for (size_t i = 0; i < 2; i++) {
        chat_template tmpl = read_template(texts[i]);
        rendering r = {0};
        assert_int_equal(chat_template_render(&tmpl, messages, 2, true, &(chat_sink){put, &r}, NULL), ZS_OK);
        assert_int_equal(r.controls, controls[i]);
        byte_buffer_free(&r.bytes);
        for (uint32_t at = 1; at <= 12; at++) { // a sink that fails is not called again
            zs_error error = {0};
            r = (rendering){.fail_at = at};
            assert_int_equal(chat_template_render(&tmpl, messages, 2, true, &(chat_sink){put, &r}, &error), ZS_ERROR_MEMORY);
            assert_int_equal(r.fail_at, 0);
            byte_buffer_free(&r.bytes);
        }
        chat_template_free(&tmpl);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const zs_message no_content[] = {{"user", "a"}, {"assistant", NULL}}, no_role[] = {{NULL, "a"}};
    static const char *const texts[] = {"{{ '<|im_start|>' }}", "{{ '<|start_header_id|>' }}"};
    rendering r = {0};
    zs_error error = {0};
    for (size_t i = 0; i < 2; i++) {
        chat_template tmpl = read_template(texts[i]);
        assert_int_equal(chat_template_render(&tmpl, no_content, 2, true, &(chat_sink){put, &r}, &error), ZS_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "message 1 of the conversation has no content"));
        assert_int_equal(chat_template_render(&tmpl, no_role, 1, true, &(chat_sink){put, &r}, &error), ZS_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "message 0 of the conversation has no role"));
        assert_null(r.bytes.data);
        chat_template_free(&tmpl);
    }
    static const char *const unknown[] = {"", "[INST] {{ x }} [/INST]", "<|im_start", "<|user|>"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        chat_template tmpl = read_template(unknown[i]);
        assert_int_equal(tmpl.family, CHAT_UNKNOWN);
        assert_int_equal(chat_template_render(&tmpl, no_role, 0, true, &(chat_sink){put, &r}, &error), ZS_ERROR_UNSUPPORTED);
        chat_template_free(&tmpl);
    }
}

/// By hand, for models whose template is missing or not known; the error says so, and names the template.
static void test_chosen(void **state) {
    (void)state;
    static const struct {
        const char *name, *expected;
    } cases[] = {
        {"chatml", "<|im_start|>user\na<|im_end|>\n"},
        {"qwen2", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"},
        {"llama2", "<s>[INST] a [/INST]"},
        {"llama3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"},
        {"mistral", "<s>[INST] a[/INST]"},
        {"vicuna", "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
                   "polite answers to the "
                   "user's questions. USER: a "},
        {"gemma", "<bos><start_of_turn>user\na<end_of_turn>\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chat_template tmpl;
        assert_int_equal(chat_template_choose(cases[i].name, &tmpl, NULL), ZS_OK);
        expect_rendering(cases[i].name, &tmpl, &(zs_message){"user", "a"}, 1, false, cases[i].expected);
        chat_template_free(&tmpl);
    }
    chat_template tmpl;
    rendering r = {0};
    zs_error error = {0};
    assert_int_equal(chat_template_choose("alpaca", &tmpl, &error), ZS_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "named alpaca; there are chatml, qwen2, llama2, llama3, mistral, vicuna, gemma"));
    tmpl = read_template("{# \xc3\xa9 #}\n### Instruction: {{ x }}");
    assert_int_equal(chat_template_render(&tmpl, NULL, 0, true, &(chat_sink){put, &r}, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(
        strstr(error.message, "begins \"{#  #}### Instruction: {{ x }}\", is of no known family: choose one by --chat-template (chatml, "));
    chat_template_free(&tmpl);
    tmpl = (chat_template){0};
    assert_int_equal(chat_template_render(&tmpl, NULL, 0, true, &(chat_sink){put, &r}, &error), ZS_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "has no chat template: choose one by --chat-template"));
}

/// Cut anywhere, a template is read within its bytes.
static void test_cut_everywhere(void **state) {
    (void)state;
    static const char text[] =
        "<|im_start|>{# c #}{%- set system_message = 'a\\n\\u00e9\\'' -%}{{ \"<|im_start|>system\\nHi\\x41<|im_end|>\" }}x";
    guarded area;
    guarded_create(&area, sizeof text);
    for (size_t size = 0; size < sizeof text; size++) {
        chat_template tmpl;
        assert_int_equal(chat_template_read((const char *)guarded_place(&area, text, size), size, &tmpl, NULL), ZS_OK);
        chat_template_free(&tmpl);
    }
    guarded_destroy(&area);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_default_system), cmocka_unit_test(test_preamble),
        cmocka_unit_test(test_structure), cmocka_unit_test(test_refused),        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
