/// Published data sets' formats, turned into objects of ours (data_file.h): fields as the data sets' own cards tell them.
#ifndef TOOLS_PUBLISHED_H
#define TOOLS_PUBLISHED_H

#include "data_file.h"

/// JSON Lines: one object of the data set in, one of ours out (data_convert; no user). An object with "prompt" or "messages" is ours.
json_t *published_gsm8k(void *user, json_t *object, char *reason, size_t size);
json_t *published_math(void *user, json_t *object, char *reason, size_t size);
json_t *published_arc(void *user, json_t *object, char *reason, size_t size);
json_t *published_humaneval(void *user, json_t *object, char *reason, size_t size);
json_t *published_mbpp(void *user, json_t *object, char *reason, size_t size);
json_t *published_mbpp_pro(void *user, json_t *object, char *reason, size_t size);

/// What is put behind a question about an image.
#define PUBLISHED_VQA_SUFFIX "\nAnswer the question using a single word or phrase."

/// Files that are one JSON value. An entry's number stands for the line's. images: folder; NULL: the data's. category: the annotations'
/// member that tells a question's kind, where they have one.
zs_status published_vqa(const char *questions, const char *annotations, const char *images, const char *category, data_complain complain,
                        void *user, data_file *data, zs_error *error);
zs_status published_textvqa(const char *path, const char *images, data_complain complain, void *user, data_file *data, zs_error *error);
zs_status published_easy_vqa(const char *path, const char *images, data_complain complain, void *user, data_file *data, zs_error *error);

#endif
