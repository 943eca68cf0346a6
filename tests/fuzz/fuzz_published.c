// A byte that chooses a data set, then a file of it as published; of OKVQA and VQAv2 the questions and the answers, separated by a byte 0.
// What is refused says why; an accepted entry has a question and an answer with something in them.
#include "tools/published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const data_convert conversions[] = {published_gsm8k,     published_math, published_arc,
                                           published_humaneval, published_mbpp, published_mbpp_pro};
enum { CONVERSIONS = sizeof conversions / sizeof *conversions, VQA = CONVERSIONS, TEXTVQA, EASY_VQA, FORMATS };

static char folder[] = "/tmp/zsigma-fuzz-XXXXXX", paths[2][64];

static void require(bool condition) {
    if (!condition) abort();
}

static void clean(void) {
    for (size_t i = 0; i < 2; i++) (void)unlink(paths[i]);
    (void)rmdir(folder);
}

static void prepare(void) {
    if (paths[0][0]) return;
    require(mkdtemp(folder) != NULL);
    for (size_t i = 0; i < 2; i++) snprintf(paths[i], sizeof paths[i], "%s/%zu.json", folder, i);
    require(atexit(clean) == 0);
}

static void put(const char *path, const uint8_t *data, size_t size) {
    FILE *file = fopen(path, "wb");
    require(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void complain(void *user, uint32_t line, const char *reason) {
    size_t *refused = user;
    require(line > 0 && reason[0] != '\0');
    ++*refused;
}

static zs_status read_as(unsigned format, data_file *file, size_t *refused, zs_error *error) {
    if (format == VQA) return published_vqa(paths[0], paths[1], NULL, NULL, complain, refused, file, error);
    if (format == TEXTVQA) return published_textvqa(paths[0], NULL, complain, refused, file, error);
    if (format == EASY_VQA) return published_easy_vqa(paths[0], NULL, complain, refused, file, error);
    return data_file_read_lines(paths[0], conversions[format], NULL, complain, refused, file, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    unsigned format = data[0] % FORMATS;
    const uint8_t *end = format == VQA ? memchr(data + 1, 0, size - 1) : NULL;
    size_t first = end ? (size_t)(end - data) - 1 : size - 1;
    prepare();
    put(paths[0], data + 1, first);
    put(paths[1], end ? end + 1 : data, end ? size - first - 2 : 0);
    data_file file = {0};
    size_t refused = 0;
    zs_error error = {0};
    zs_status status = read_as(format, &file, &refused, &error);
    if (status) {
        require(error.status == status && error.message[0] != '\0' && !file.count);
        return 0;
    }
    for (size_t i = 0; i < file.count; i++) {
        const data_item *item = &file.items[i];
        require(item->line > 0 && item->message_count > 0 && item->answer_count > 0 && item->answer == item->answers[0]);
        for (size_t k = 0; k < item->message_count; k++) require(strlen(item->messages[k].content) > 0);
        require(format < VQA || item->image);
    }
    data_file_free(&file);
    return 0;
}
