/// Scorers by kind of answer; scorer.h chooses. Plain functions of texts: no state, no files.
#ifndef TOOLS_SCORE_H
#define TOOLS_SCORE_H

#include "data_file.h"

/// Content of the last \boxed{…} or \fbox{…}, braces balanced, malloc'ed; NULL: there is none (or no memory).
char *score_boxed(const char *text);

/// The same words: case, spacing, quotes, backticks, asterisks and full stops around do not count. Text in the last \boxed{} counts alone.
bool score_label(const char *answer, const char *gold);

/// The number after the last ####, else the last number of text, in plain digits: no sign +, no commas between thousands, no zeros that say
/// nothing. $, % and a trailing full stop do not count. False: there is none, or it has more than size − 1 characters.
bool score_number(const char *text, char *number, size_t size);
bool score_numeric(const char *answer, const char *gold);

/// Whether two expressions are equal as the checker of the MATH data set compares them (Hendrycks et al., arXiv 2103.03874), by text after
/// some rewriting. Where a text has a \boxed{}, the last one counts alone.
bool score_latex(const char *answer, const char *gold);

/// The choice that an answer names, by letter or by text; SIZE_MAX: none, or several.
size_t score_find_choice(const data_item *item, const char *answer);
bool score_choice(const data_item *item, const char *answer);

/// Accuracy of VQA (vqaEval.py of the data set's authors): over the people asked, the mean of min(1, how many of the others said so / 3).
/// Of a single answer: whether it is the same.
double score_vqa(const data_item *item, const char *answer);
/// What an answer is compared as, malloc'ed; words: articles, number words and contractions are treated too. NULL: no memory.
char *score_vqa_normalise(const char *text, bool words);

/// The program that an answer makes with the item's tests, malloc'ed: the answer's last fenced block of Python (or all of it), behind
/// code_prefix where it does not define entry_point itself. NULL: no memory.
char *score_program(const data_item *item, const char *answer);

#endif
