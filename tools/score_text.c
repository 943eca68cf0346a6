/// Labels, numbers, choices.
#include "score.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- boxes ---------------------------------------------------------------------------------------------------------

static const char *last_of(const char *text, const char *wanted) {
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, wanted)); at++) last = at;
    return last;
}

static char *copy_range(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

char *score_boxed(const char *text) {
    const char *box = last_of(text, "\\boxed"), *frame = last_of(text, "\\fbox");
    const char *at = !box || (frame && frame > box) ? frame : box;
    if (!at) return NULL;
    at += at == box ? strlen("\\boxed") : strlen("\\fbox");
    if (*at == ' ') { // "\boxed 5": up to the end of the formula
        at++;
        return copy_range(at, strcspn(at, "$"));
    }
    if (*at != '{') return NULL;
    size_t depth = 0;
    for (const char *end = at; *end; end++) {
        depth += *end == '{';
        if (*end == '}' && --depth == 0) return copy_range(at + 1, (size_t)(end - at - 1));
    }
    return NULL;
}

// ---- labels --------------------------------------------------------------------------------------------------------

static bool is_space(char c) { return isspace((unsigned char)c) != 0; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Lower case, single spaces, nothing around that is no part of the words. malloc'ed.
static char *plain_words(const char *text) {
    static const char around[] = " \t\r\n\f\v`'\".*_";
    size_t length = strlen(text);
    while (length > 0 && strchr(around, text[length - 1])) length--;
    while (length > 0 && strchr(around, *text)) text++, length--;
    char *words = malloc(length + 1), *to = words;
    if (!words) return NULL;
    for (size_t i = 0; i < length; i++) {
        if (!is_space(text[i]))
            *to++ = (char)tolower((unsigned char)text[i]);
        else if (to > words && to[-1] != ' ')
            *to++ = ' ';
    }
    *to = 0;
    return words;
}

static bool same_words(const char *a, const char *b) {
    char *x = plain_words(a), *y = plain_words(b);
    bool same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

bool score_label(const char *answer, const char *gold) {
    char *box = score_boxed(answer), *gold_box = score_boxed(gold);
    bool same = same_words(box ? box : answer, gold_box ? gold_box : gold);
    free(box);
    free(gold_box);
    return same;
}

// ---- numbers -------------------------------------------------------------------------------------------------------

/// Bytes of a minus in front of at (begin ≤ at): a hyphen or U+2212, but not the one of a subtraction.
static size_t minus_before(const char *begin, const char *at) {
    static const char sign[] = "\xe2\x88\x92";
    size_t bytes = at > begin && at[-1] == '-' ? 1 : at - begin >= 3 && memcmp(at - 3, sign, 3) == 0 ? 3 : 0;
    const char *before = at - bytes;
    bool subtraction = bytes && before > begin && (isalnum((unsigned char)before[-1]) || before[-1] == ')');
    return subtraction ? 0 : bytes;
}

/// Length of the number that begins at a digit, or at a point with a digit behind: 1,234.50 goes on through both; a comma only counts
/// before three digits that end there.
static size_t number_length(const char *at) {
    size_t n = 0;
    bool point = false;
    for (;; n++) {
        if (is_digit(at[n])) continue;
        if (at[n] == '.' && !point && is_digit(at[n + 1]))
            point = true;
        else if (!(at[n] == ',' && !point && n > 0 && is_digit(at[n + 1]) && is_digit(at[n + 2]) && is_digit(at[n + 3]) &&
                   !is_digit(at[n + 4])))
            return n;
    }
}

static bool write_number(const char *at, size_t length, bool negative, char *number, size_t size) {
    size_t n = 0;
    bool point = memchr(at, '.', length) != NULL;
    if (length + 3 > size) return false;
    if (negative) number[n++] = '-';
    size_t first = n;
    for (size_t i = 0; i < length; i++) {
        if (at[i] == ',' || (at[i] == '0' && n == first && i + 1 < length && at[i + 1] != '.')) continue;
        if (at[i] == '.' && n == first) number[n++] = '0';
        number[n++] = at[i];
    }
    while (point && n > first && number[n - 1] == '0') n--;
    if (point && n > first && number[n - 1] == '.') n--;
    number[n] = 0;
    if (strcmp(number, "-0") == 0) memcpy(number, "0", 2);
    return true;
}

bool score_number(const char *text, char *number, size_t size) {
    const char *mark = last_of(text, "####"), *begin = mark ? mark + 4 : text, *found = NULL;
    size_t found_length = 0;
    for (const char *at = begin; *at;) {
        bool starts = is_digit(*at) || (*at == '.' && is_digit(at[1]) && !(at > begin && is_digit(at[-1])));
        size_t length = starts ? number_length(at) : 1;
        if (starts && !(mark && found)) { // behind the mark the first one counts
            found = at;
            found_length = length;
        }
        at += length;
    }
    if (!found) return false;
    const char *before = found > begin && found[-1] == '$' ? found - 1 : found; // -$5
    return write_number(found, found_length, minus_before(begin, before) || minus_before(begin, found), number, size);
}

bool score_numeric(const char *answer, const char *gold) {
    char a[128], b[128];
    return score_number(answer, a, sizeof a) && score_number(gold, b, sizeof b) && strcmp(a, b) == 0;
}

// ---- choices -------------------------------------------------------------------------------------------------------

static size_t choice_of_label(const data_item *item, const char *label, size_t length) {
    for (size_t i = 0; i < item->choice_count; i++) {
        if (strlen(item->choices[i].label) == length && strncasecmp(item->choices[i].label, label, length) == 0) return i;
    }
    return SIZE_MAX;
}

/// The label that text begins with: "B", "(B)", "B.", "B) because", "**B**"; not the article in "A dog".
static size_t leading_label(const data_item *item, const char *text) {
    text += strspn(text, " \t\r\n*`'\"$");
    bool bracket = *text == '(' || *text == '[';
    text += bracket;
    size_t length = 0;
    while (isalnum((unsigned char)text[length])) length++;
    const char *after = text + length;
    if (length == 0 || !(*after == 0 || strchr(bracket ? ")]" : ".):,;*`'\"\n$", *after))) {
        const char *rest = after + strspn(after, " \t\r");
        if (length == 0 || *rest) return SIZE_MAX;
    }
    return choice_of_label(item, text, length);
}

/// The choice that "answer is …" or "answer: …" tells, the last such place.
static size_t told_choice(const data_item *item, const char *answer) {
    char *lower = plain_words(answer);
    const char *last = NULL;
    for (const char *at = lower; at && (at = strstr(at, "answer")); at += 6) {
        const char *rest = at + 6;
        rest += strspn(rest, " *");
        if (*rest == ':' || strncmp(rest, "is", 2) == 0) last = rest + (*rest == ':' ? 1 : 2);
    }
    if (last) last += strspn(last, " *:");
    if (last && strncmp(last, "option ", 7) == 0) last += 7;
    size_t found = last ? leading_label(item, last) : SIZE_MAX;
    if (last && found == SIZE_MAX) {
        // "the answer is c because …": a letter alone is no word but the article
        size_t length = strcspn(last, " ,.;");
        if (strcmp(last, "a") != 0 && strncmp(last, "a ", 2) != 0) found = choice_of_label(item, last, length);
    }
    free(lower);
    return found;
}

/// The one choice whose text is the answer, or else occurs in it; where one text holds another, the longer one counts.
static size_t choice_by_text(const data_item *item, const char *answer) {
    char *words = plain_words(answer);
    size_t found = SIZE_MAX, found_length = 0;
    bool several = false;
    for (size_t i = 0; words && i < item->choice_count; i++) {
        char *text = plain_words(item->choices[i].text);
        const char *at = text && *text ? strstr(words, text) : NULL;
        size_t length = at ? strlen(text) : 0;
        bool whole = at && (at == words || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[length]);
        if (whole && length == strlen(words)) { // all of it
            free(text);
            free(words);
            return i;
        }
        if (whole && found != SIZE_MAX) {
            char *other = plain_words(item->choices[found].text);
            bool holds = other && strstr(text, other), held = other && strstr(other, text);
            several = several || !(holds || held);
            free(other);
        }
        if (whole && length > found_length) {
            found = i;
            found_length = length;
        }
        free(text);
    }
    free(words);
    return several ? SIZE_MAX : found;
}

size_t score_find_choice(const data_item *item, const char *answer) {
    char *box = score_boxed(answer);
    const char *text = box ? box : answer;
    size_t found = leading_label(item, text);
    if (found == SIZE_MAX) found = told_choice(item, text);
    if (found == SIZE_MAX) found = choice_by_text(item, text);
    free(box);
    return found;
}

bool score_choice(const data_item *item, const char *answer) {
    size_t found = score_find_choice(item, answer), right = SIZE_MAX;
    if (found == SIZE_MAX) return false;
    for (size_t i = 0; i < item->answer_count; i++) {
        right = choice_of_label(item, item->answers[i], strlen(item->answers[i]));
        if (right == SIZE_MAX) right = choice_by_text(item, item->answers[i]);
        if (right == found) return true;
    }
    return false;
}
