// Scorers, as tables: what an answer is worth. Expected values are worked out by hand from each data set's own rules.
#include "tools/score.h"
#include "tools/scorer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static data_item parse(const char *line) {
    data_item item = {.line = 3};
    char reason[200];
    if (!data_item_parse(line, strlen(line), &item, reason, sizeof reason)) fail_msg("%s: %s", line, reason);
    return item;
}

static double score_of(scorer *s, const data_item *item, const char *answer) {
    zs_error error;
    double score = -1;
    if (scorer_score(s, item, answer, &score, &error)) fail_msg("%s: %s", answer, error.message);
    return score;
}

typedef struct pair {
    const char *answer, *gold;
    bool same;
} pair;

static void check_pairs(const char *name, const pair *pairs, size_t count) {
    scorer *s = NULL;
    assert_int_equal(scorer_create(name, NULL, &s, NULL), ZS_OK);
    for (size_t i = 0; i < count; i++) {
        json_t *object = json_pack("{s:s, s:s}", "prompt", "q", "answer", pairs[i].gold);
        data_item item = {0};
        char reason[100];
        assert_true(data_item_take(object, &item, reason, sizeof reason));
        if (score_of(s, &item, pairs[i].answer) != (pairs[i].same ? 1 : 0))
            fail_msg("%s: '%s' against '%s' should be %d", name, pairs[i].answer, pairs[i].gold, pairs[i].same);
        data_item_free(&item);
    }
    scorer_destroy(&s);
    assert_null(s);
}

static void test_label(void **state) {
    (void)state;
    static const pair pairs[] = {
        {"Paris", "Paris", true},
        {" paris.\n", "Paris", true},
        {"`yes`", "yes", true},
        {"**Yes**", "yes", true},
        {"grand  father", "grand father", true},
        {"The answer is \\boxed{No}.", "No", true},
        {"Paris, France", "Paris", false},
        {"", "Paris", false},
        {"not no", "no", false},
        {"2.5", "2.5", true},
    };
    check_pairs("label", pairs, sizeof pairs / sizeof *pairs);
}

static void test_several_golds(void **state) {
    (void)state;
    data_item item = parse("{\"prompt\": \"q\", \"answers\": [\"car\", \"automobile\"]}");
    scorer *s = NULL;
    assert_int_equal(scorer_create("label", NULL, &s, NULL), ZS_OK);
    assert_true(score_of(s, &item, "Automobile.") == 1);
    assert_true(score_of(s, &item, "car") == 1);
    assert_true(score_of(s, &item, "bus") == 0);
    scorer_destroy(&s);
    data_item_free(&item);
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        const char *text, *number; // NULL: none
    } cases[] = {
        {"18", "18"},
        {"#### 18", "18"},
        {"It is 3 + 4 = 7\n#### 7", "7"},
        {"#### 7 apples, not 9", "7"},
        {"72.", "72"},
        {"$1,234.50", "1234.5"},
        {"-$5", "-5"},
        {"$-5", "-5"},
        {"1,000,000 people", "1000000"},
        {"10%", "10"},
        {"007", "7"},
        {"0.50", "0.5"},
        {".5", "0.5"},
        {"-0", "0"},
        {"5.00", "5"},
        {"\xe2\x88\x92"
         "12",
         "-12"},
        {"10-5", "5"},
        {"(3)-2", "2"},
        {"in 1,23 and", "23"},
        {"1.2.3", "3"},
        {"+4", "4"},
        {"x = -7", "-7"},
        {"", NULL},
        {"none", NULL},
        {"####", NULL},
        {"-", NULL},
        {"100,000", "100000"},
        {"1000", "1000"},
        {"0", "0"},
        {"000.0", "0"},
        {"12345678901234567890123", "12345678901234567890123"},
        {"#### 5 #### 6", "6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char number[64] = "";
        bool found = score_number(cases[i].text, number, sizeof number);
        if (found != (cases[i].number != NULL) || (found && strcmp(number, cases[i].number) != 0))
            fail_msg("'%s' gives '%s'", cases[i].text, number);
    }
    char small[4];
    assert_false(score_number("12345", small, sizeof small));
}

static void test_numeric(void **state) {
    (void)state;
    static const pair pairs[] = {
        {"The answer is 1,200.", "5 * 240 = 1200\n#### 1,200", true},
        {"$64.00", "#### 64", true},
        {"64.5", "#### 64", false},
        {"I think 3 of 4", "#### 3", false},
        {"nothing", "#### 3", false},
        {"-3", "3", false},
        {"so\n#### 3\nwhich is 1/2 of 6", "3", true},
    };
    check_pairs("gsm8k", pairs, sizeof pairs / sizeof *pairs);
}

static void test_latex(void **state) {
    (void)state;
    static const pair pairs[] = {
        {"so \\boxed{5}.", "thus $\\boxed{5}$", true},
        {"\\boxed{3} no, \\boxed{4}", "\\boxed{4}", true},
        {"\\boxed{4} no, \\boxed{3}", "\\boxed{4}", false},
        {"\\boxed{\\frac{1}{2}}", "\\boxed{\\dfrac{1}{2}}", true},
        {"\\boxed{\\tfrac12}", "\\boxed{\\frac{1}{2}}", true},
        {"\\boxed{\\frac1{72}}", "\\boxed{\\frac{1}{72}}", true},
        {"\\boxed{1/2}", "\\boxed{\\frac{1}{2}}", true},
        {"\\boxed{0.5}", "\\boxed{\\frac12}", true},
        {"\\boxed{.5}", "\\boxed{0.5}", true},
        {"\\boxed{x=5}", "\\boxed{5}", true},
        {"\\boxed{abc=5}", "\\boxed{5}", false},
        {"\\boxed{\\sqrt3}", "\\boxed{\\sqrt{3}}", true},
        {"\\boxed{2\\sqrt{3}}", "\\boxed{2\\sqrt3}", true},
        {"\\boxed{90^\\circ}", "\\boxed{90}", true},
        {"\\boxed{90^{\\circ}}", "\\boxed{90^\\circ}", true},
        {"\\boxed{50\\%}", "\\boxed{50}", true},
        {"\\boxed{\\$32}", "\\boxed{32}", true},
        {"\\boxed{12\\text{ cm}}", "\\boxed{12}", true},
        {"\\boxed{12\\text{cm}}", "\\boxed{12}", false}, // the checker only knows units behind a space
        {"\\boxed{\\left(1, 2\\right)}", "\\boxed{(1,2)}", true},
        {"\\boxed{1,\\!000}", "\\boxed{1,000}", true},
        {"\\boxed{\\text{Tuesday}}", "\\boxed{\\text{Tuesday}}", true},
        {"\\boxed{\\{1, 2\\}}", "\\boxed{\\{1,2\\}}", true},
        {"\\fbox{7}", "\\boxed{7}", true},
        {"\\boxed 7$ is", "\\boxed{7}", true},
        {"$x^2$", "x^2", true},
        {"12", "\\boxed{12}", true},
        {"", "\\boxed{12}", false},
        {"\\boxed{}", "\\boxed{12}", false},
        {"\\boxed{12", "\\boxed{12}", false},
        {"\\boxed{\\frac}", "\\boxed{\\frac12}", false},
        {"\\boxed{\\sqrt}", "\\boxed{3}", false},
        {"\\boxed{-3/4}", "\\boxed{\\frac{-3}{4}}", true},
        {"\\boxed{a/b}", "\\boxed{\\frac{a}{b}}", false},
    };
    check_pairs("math", pairs, sizeof pairs / sizeof *pairs);
}

static void test_choice(void **state) {
    (void)state;
    static const char line[] =
        "{\"prompt\": \"q\", \"answer\": \"C\", \"choices\": [{\"label\": \"A\", \"text\": \"a dog\"}, {\"label\": \"B\", "
        "\"text\": \"water\"}, {\"label\": \"C\", \"text\": \"salt water\"}, {\"label\": \"D\", \"text\": \"Sand\"}]}";
    static const struct {
        const char *answer;
        int choice; // −1: none
    } cases[] = {
        {"C", 2},
        {"c", 2},
        {" (C) ", 2},
        {"C.", 2},
        {"C) salt water", 2},
        {"**B**", 1},
        {"[D]", 3},
        {"The answer is C.", 2},
        {"Answer: (B)", 1},
        {"The correct answer is option d", 3},
        {"salt water", 2},
        {"It is salt water.", 2},
        {"It is water.", 1},
        {"A dog", 0},
        {"A dog or sand", -1},
        {"water or sand", -1},
        {"A", 0},
        {"", -1},
        {"E", -1},
        {"Because of gravity", -1},
        {"\\boxed{C}", 2},
        {"So the answer is \\boxed{\"B\"}", 1},
        {"the answer is a dog", 0},
        {"underwater", -1},
        {"B\nbecause of the water", 1},
        {"answer is A. no, answer is B.", 1},
        {"sandy", -1},
    };
    data_item item = parse(line);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t found = score_find_choice(&item, cases[i].answer);
        if (found != (cases[i].choice < 0 ? SIZE_MAX : (size_t)cases[i].choice))
            fail_msg("'%s' gives %zd", cases[i].answer, (ssize_t)found);
    }
    assert_true(score_choice(&item, "salt water"));
    assert_false(score_choice(&item, "water"));
    data_item_free(&item);
    item = parse("{\"prompt\": \"q\", \"answer\": \"two\", \"choices\": [{\"label\": \"1\", \"text\": \"one\"}, {\"label\": \"2\", "
                 "\"text\": \"two\"}]}");
    assert_true(score_choice(&item, "2"));
    assert_true(score_choice(&item, "(2) two"));
    assert_false(score_choice(&item, "1"));
    data_item_free(&item);
}

static void test_vqa_words(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool words;
        const char *normal;
    } cases[] = {
        {"A Dog.", true, "dog"},
        {"The  two\tdogs\n", true, "2 dogs"},
        {"none", true, "0"},
        {"ten o'clock", true, "10 o'clock"},
        {"oclock", true, "o'clock"},
        {"dont know", true, "don't know"},
        {"couldntve", true, "couldntve"},
        {"couldnt've", true, "couldn't've"},
        {"somebody'd", true, "somebodyd"},
        {"yall'd've", true, "y'all'd've"},
        {"ow's'at", true, "'ow's'at"},
        {"red, white", true, "red white"},  // ", " occurs: taken out
        {"red/white", true, "red white"},   // a space for it
        {"red / white", true, "red white"}, // " /" occurs: taken out, and the words are joined by one space
        {"1,000", true, "1000"},            // digit, comma, digit
        {"1,000-2", true, "10002"},         // then every mark is taken out
        {"t-shirt", true, "t shirt"},
        {"3.5 meters.", true, "3.5 meters"},
        {"u.s.a", true, "usa"},
        {"what?", true, "what"},
        {"what? yes!", true, "what yes"},
        {"", true, ""},
        {"an", true, ""},
        {"A Dog.", false, "A Dog"},
        {"two", false, "two"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *normal = score_vqa_normalise(cases[i].text, cases[i].words);
        assert_non_null(normal);
        if (strcmp(normal, cases[i].normal) != 0) fail_msg("'%s' gives '%s'", cases[i].text, normal);
        free(normal);
    }
}

static void test_vqa(void **state) {
    (void)state;
    scorer *s = NULL;
    assert_int_equal(scorer_create("vqav2", NULL, &s, NULL), ZS_OK);
    // Of ten people n said "cat": n say so and see n − 1 others, 10 − n see n.
    static const double expected[] = {0, 0.3, 0.6, 0.9, 1, 1};
    for (int n = 0; n <= 5; n++) {
        json_t *answers = json_array();
        for (int i = 0; i < 10; i++) json_array_append_new(answers, json_string(i < n ? "cat" : "dog"));
        data_item item = {0};
        char reason[100];
        assert_true(data_item_take(json_pack("{s:s, s:o}", "prompt", "q", "answers", answers), &item, reason, sizeof reason));
        double score = score_of(s, &item, "The cat.");
        if (fabs(score - expected[n]) > 1e-12) fail_msg("%d of ten: %g", n, score);
        data_item_free(&item);
    }
    // Where all agree their answers stay as they are, and the prediction loses its comma.
    data_item item = parse("{\"prompt\": \"q\", \"answers\": [\"red, white\", \"red, white\", \"red, white\", \"red, white\"]}");
    assert_true(score_of(s, &item, "red, white") == 0);
    data_item_free(&item);
    item = parse("{\"prompt\": \"q\", \"answers\": [\"red, white\", \"red, white\", \"red, white\", \"red, white\", \"pink\"]}");
    assert_true(score_of(s, &item, "red, white") == 1);
    data_item_free(&item);
    item = parse("{\"prompt\": \"q\", \"answer\": \"yes\"}");
    assert_true(score_of(s, &item, "Yes.") == 1);
    assert_true(score_of(s, &item, "no") == 0);
    data_item_free(&item);
    scorer_destroy(&s);
}

// ---- reward commands -----------------------------------------------------------------------------------------------

static zs_status reward(const char *command, double *score, zs_error *error) {
    scorer *s = NULL;
    data_item item = parse("{\"id\": \"a\", \"prompt\": \"q\", \"answer\": \"four\", \"extra\": 7}");
    assert_int_equal(scorer_create("label", &(scorer_params){.command = command, .timeout_ms = 700}, &s, error), ZS_OK);
    *score = -1;
    zs_status status = scorer_score(s, &item, "it's \"4\"\n", score, error);
    scorer_destroy(&s);
    data_item_free(&item);
    return status;
}

static void test_reward_command(void **state) {
    (void)state;
    double score;
    zs_error error;
    assert_int_equal(reward("echo 0.25", &score, &error), ZS_OK);
    assert_true(score == 0.25);
    assert_int_equal(reward("printf 1", &score, &error), ZS_OK);
    assert_true(score == 1);
    assert_int_equal(reward("grep -q '\"extra\":7' && echo 1 || echo 0", &score, &error), ZS_OK);
    assert_true(score == 1);
    assert_int_equal(reward("grep -q 's \\\\\"4\\\\\"\\\\n' && echo 1 || echo 0", &score, &error), ZS_OK);
    assert_true(score == 1);
    static const struct {
        const char *command;
        zs_status status;
        const char *message;
    } cases[] = {
        {"sleep 60", ZS_ERROR_TIMEOUT, "did not end within 700 ms"},
        {"trap '' TERM INT; while :; do :; done", ZS_ERROR_TIMEOUT, "did not end"},
        {"echo nan", ZS_ERROR_NUMERIC, "printed nan"},
        {"echo inf", ZS_ERROR_NUMERIC, "from 0 to 1"},
        {"echo 1.5", ZS_ERROR_NUMERIC, "from 0 to 1"},
        {"echo -0.1", ZS_ERROR_NUMERIC, "from 0 to 1"},
        {"true", ZS_ERROR_FORMAT, "printed no number"},
        {"echo good", ZS_ERROR_FORMAT, "\"good"},
        {"echo 1 point", ZS_ERROR_FORMAT, "printed no number"},
        {"echo 1; echo oops >&2; exit 3", ZS_ERROR_IO, "exit status 3): echo 1; echo oops >&2; exit 3: oops"},
        {"no-such-command-here", ZS_ERROR_IO, "exit status 127"},
        {"kill -9 $$", ZS_ERROR_IO, "killed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zs_status status = reward(cases[i].command, &score, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].message))
            fail_msg("%s: %d %s", cases[i].command, (int)status, error.message);
        assert_non_null(strstr(error.message, "line 3"));
        assert_true(score == -1 || score == 0);
    }
}

/// A command that does not read what it is given, of any length, ends nobody.
static void test_reward_command_does_not_read(void **state) {
    (void)state;
    enum { LONG = 1 << 20 };
    char *answer = malloc(LONG + 1);
    assert_non_null(answer);
    memset(answer, 'x', LONG);
    answer[LONG] = 0;
    scorer *s = NULL;
    zs_error error;
    double score;
    data_item item = parse("{\"prompt\": \"q\", \"answer\": \"four\"}");
    assert_int_equal(scorer_create("label", &(scorer_params){.command = "exec <&-; echo 1"}, &s, &error), ZS_OK);
    assert_int_equal(scorer_score(s, &item, answer, &score, &error), ZS_OK);
    assert_true(score == 1);
    scorer_destroy(&s);
    assert_int_equal(scorer_create("label", &(scorer_params){.command = "test $(wc -c) -gt 1048576 && echo 1"}, &s, &error), ZS_OK);
    assert_int_equal(scorer_score(s, &item, answer, &score, &error), ZS_OK);
    assert_true(score == 1);
    scorer_destroy(&s);
    data_item_free(&item);
    free(answer);
}

static void test_unusable(void **state) {
    (void)state;
    scorer *s = NULL;
    zs_error error;
    double score;
    assert_int_equal(scorer_create("no-such-task", NULL, &s, &error), ZS_ERROR_ARGUMENT);
    assert_null(s);
    scorer_destroy(&s);
    data_item item = parse("{\"prompt\": \"q\", \"answer\": \"four\"}");
    assert_int_equal(scorer_create("gsm8k", NULL, &s, &error), ZS_OK);
    assert_int_equal(scorer_score(s, &item, "4", &score, &error), ZS_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "line 3 cannot be scored as gsm8k: \"answer\" holds no number"));
    scorer_destroy(&s);
    data_item_free(&item);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_label),          cmocka_unit_test(test_several_golds),
        cmocka_unit_test(test_numbers),        cmocka_unit_test(test_numeric),
        cmocka_unit_test(test_latex),          cmocka_unit_test(test_choice),
        cmocka_unit_test(test_vqa_words),      cmocka_unit_test(test_vqa),
        cmocka_unit_test(test_reward_command), cmocka_unit_test(test_reward_command_does_not_read),
        cmocka_unit_test(test_unusable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
