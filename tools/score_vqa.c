/// VQA accuracy, by the data set's own script (GT-Vision-Lab/VQA, vqaEval.py at commit c4e6a0e4; an older one had : and ' in the list of
/// punctuation instead of { } - and !).
#include "score.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char punctuation[] = ";/[]\"{}()=+\\_-><@`,?!";

static const char *const numbers[][2] = {{"none", "0"}, {"zero", "0"}, {"one", "1"},   {"two", "2"},   {"three", "3"}, {"four", "4"},
                                         {"five", "5"}, {"six", "6"},  {"seven", "7"}, {"eight", "8"}, {"nine", "9"},  {"ten", "10"}};

/// Sorted. Words are in lower case by then, so the script's four entries with a capital I never apply and are left out.
static const char *const contractions[][2] = {
    {"'ow'sat", "'ow's'at"},
    {"'ows'at", "'ow's'at"},
    {"aint", "ain't"},
    {"arent", "aren't"},
    {"cant", "can't"},
    {"couldn'tve", "couldn't've"},
    {"couldnt", "couldn't"},
    {"couldnt've", "couldn't've"},
    {"couldve", "could've"},
    {"didnt", "didn't"},
    {"doesnt", "doesn't"},
    {"dont", "don't"},
    {"hadn'tve", "hadn't've"},
    {"hadnt", "hadn't"},
    {"hadnt've", "hadn't've"},
    {"hasnt", "hasn't"},
    {"havent", "haven't"},
    {"he'dve", "he'd've"},
    {"hed", "he'd"},
    {"hed've", "he'd've"},
    {"hes", "he's"},
    {"howd", "how'd"},
    {"howll", "how'll"},
    {"hows", "how's"},
    {"isnt", "isn't"},
    {"it'dve", "it'd've"},
    {"itd", "it'd"},
    {"itd've", "it'd've"},
    {"itll", "it'll"},
    {"let's", "let's"},
    {"maam", "ma'am"},
    {"mightn'tve", "mightn't've"},
    {"mightnt", "mightn't"},
    {"mightnt've", "mightn't've"},
    {"mightve", "might've"},
    {"mustnt", "mustn't"},
    {"mustve", "must've"},
    {"neednt", "needn't"},
    {"notve", "not've"},
    {"oclock", "o'clock"},
    {"oughtnt", "oughtn't"},
    {"ow's'at", "'ow's'at"},
    {"shant", "shan't"},
    {"she'dve", "she'd've"},
    {"she's", "she's"},
    {"shed've", "she'd've"},
    {"shouldn'tve", "shouldn't've"},
    {"shouldnt", "shouldn't"},
    {"shouldnt've", "shouldn't've"},
    {"shouldve", "should've"},
    {"somebody'd", "somebodyd"},
    {"somebody'dve", "somebody'd've"},
    {"somebodyd've", "somebody'd've"},
    {"somebodyll", "somebody'll"},
    {"somebodys", "somebody's"},
    {"someone'dve", "someone'd've"},
    {"someoned", "someone'd"},
    {"someoned've", "someone'd've"},
    {"someonell", "someone'll"},
    {"someones", "someone's"},
    {"something'dve", "something'd've"},
    {"somethingd", "something'd"},
    {"somethingd've", "something'd've"},
    {"somethingll", "something'll"},
    {"thats", "that's"},
    {"there'dve", "there'd've"},
    {"thered", "there'd"},
    {"thered've", "there'd've"},
    {"therere", "there're"},
    {"theres", "there's"},
    {"they'dve", "they'd've"},
    {"theyd", "they'd"},
    {"theyd've", "they'd've"},
    {"theyll", "they'll"},
    {"theyre", "they're"},
    {"theyve", "they've"},
    {"twas", "'twas"},
    {"wasnt", "wasn't"},
    {"we'dve", "we'd've"},
    {"wed've", "we'd've"},
    {"werent", "weren't"},
    {"weve", "we've"},
    {"whatll", "what'll"},
    {"whatre", "what're"},
    {"whats", "what's"},
    {"whatve", "what've"},
    {"whens", "when's"},
    {"whered", "where'd"},
    {"wheres", "where's"},
    {"whereve", "where've"},
    {"who'dve", "who'd've"},
    {"whod", "who'd"},
    {"whod've", "who'd've"},
    {"wholl", "who'll"},
    {"whos", "who's"},
    {"whove", "who've"},
    {"whyll", "why'll"},
    {"whyre", "why're"},
    {"whys", "why's"},
    {"wont", "won't"},
    {"wouldn'tve", "wouldn't've"},
    {"wouldnt", "wouldn't"},
    {"wouldnt've", "wouldn't've"},
    {"wouldve", "would've"},
    {"y'all'dve", "y'all'd've"},
    {"y'alld've", "y'all'd've"},
    {"y'allll", "y'all'll"},
    {"yall", "y'all"},
    {"yall'd've", "y'all'd've"},
    {"yall'll", "y'all'll"},
    {"you'dve", "you'd've"},
    {"youd", "you'd"},
    {"youd've", "you'd've"},
    {"youll", "you'll"},
    {"youre", "you're"},
    {"youve", "you've"},
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// A digit, a comma and a digit anywhere.
static bool has_thousands(const char *text) {
    for (const char *at = text; (at = strchr(at, ',')); at++) {
        if (at > text && is_digit(at[-1]) && is_digit(at[1])) return true;
    }
    return false;
}

/// Each mark is taken out where it stands beside a space somewhere (or the text has a number with a comma), else it becomes a space.
static void process_punctuation(char *text) {
    bool thousands = has_thousands(text), remove[sizeof punctuation] = {false};
    for (size_t p = 0; punctuation[p]; p++) {
        const char before[] = {' ', punctuation[p], 0}, after[] = {punctuation[p], ' ', 0};
        remove[p] = thousands || strstr(text, before) || strstr(text, after);
    }
    char *to = text;
    for (const char *at = text; *at; at++) {
        const char *mark = strchr(punctuation, *at);
        if (!mark)
            *to++ = *at;
        else if (!remove[mark - punctuation])
            *to++ = ' ';
    }
    *to = 0;
    // Full stops, but before a digit.
    to = text;
    for (const char *at = text; *at; at++) {
        if (*at != '.' || is_digit(at[1])) *to++ = *at;
    }
    *to = 0;
}

static int compare_entry(const void *word, const void *entry) { return strcmp(word, *(const char *const *)entry); }

static const char *replace_word(const char *word) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(word, numbers[i][0]) == 0) return numbers[i][1];
    }
    const char *const *entry = bsearch(word, contractions, sizeof contractions / sizeof *contractions, sizeof *contractions, compare_entry);
    return entry ? entry[1] : word;
}

static bool is_article(const char *word) { return strcmp(word, "a") == 0 || strcmp(word, "an") == 0 || strcmp(word, "the") == 0; }

/// Number words, articles, contractions; words joined by single spaces. malloc'ed.
static char *process_words(char *text) {
    char *result = malloc(3 * strlen(text) + 8), *to = result; // a contraction gains two characters at most
    if (!result) return NULL;
    for (char *at = text; *at; at++) *at = (char)tolower((unsigned char)*at);
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t\r\n\f\v", &rest); word; word = strtok_r(NULL, " \t\r\n\f\v", &rest)) {
        if (is_article(word)) continue;
        const char *replaced = replace_word(word);
        if (to > result) *to++ = ' ';
        size_t length = strlen(replaced);
        memcpy(to, replaced, length);
        to += length;
    }
    *to = 0;
    return result;
}

char *score_vqa_normalise(const char *text, bool words) {
    size_t length = strlen(text);
    char *copy = malloc(length + 1), *begin = copy;
    if (!copy) return NULL;
    memcpy(copy, text, length + 1);
    for (char *at = copy; words && *at; at++) *at = *at == '\n' || *at == '\t' ? ' ' : *at;
    while (words && length > 0 && isspace((unsigned char)copy[length - 1])) copy[--length] = 0;
    while (words && isspace((unsigned char)*begin)) begin++;
    memmove(copy, begin, strlen(begin) + 1);
    process_punctuation(copy);
    if (!words) return copy;
    char *result = process_words(copy);
    free(copy);
    return result;
}

/// Whether the people differ: only then are their answers processed.
static bool answers_differ(const data_item *item) {
    for (size_t i = 1; i < item->answer_count; i++) {
        if (strcmp(item->answers[i], item->answers[0]) != 0) return true;
    }
    return false;
}

double score_vqa(const data_item *item, const char *answer) {
    char *said = score_vqa_normalise(answer, true);
    bool differ = answers_differ(item);
    size_t same = 0;
    for (size_t i = 0; said && i < item->answer_count; i++) {
        char *person = differ ? score_vqa_normalise(item->answers[i], false) : NULL;
        same += strcmp(person ? person : item->answers[i], said) == 0;
        free(person);
    }
    free(said);
    if (item->answer_count == 1) return same ? 1 : 0;
    // Of those who said so, each sees same − 1 others; everyone else sees all of them.
    double seen_by_them = same > 0 ? (double)(same - 1) / 3 : 0, seen_by_others = (double)same / 3, n = (double)item->answer_count;
    seen_by_them = seen_by_them < 1 ? seen_by_them : 1;
    seen_by_others = seen_by_others < 1 ? seen_by_others : 1;
    return ((double)same * seen_by_them + (n - (double)same) * seen_by_others) / n;
}
