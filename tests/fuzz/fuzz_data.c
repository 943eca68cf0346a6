// Any bytes as a line of data: a reason, or messages and an answer that can be read whole.
#include "tools/data_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char reason[64] = "";
    data_item item = {.line = 3};
    bool accepted = data_item_parse((const char *)data, size, &item, reason, sizeof reason);
    require(item.line == 3 && accepted == (item.root != NULL) && accepted == (reason[0] == '\0'));
    if (!accepted) return 0;
    require(strlen(item.answer) > 0 && item.message_count > 0);
    for (size_t i = 0; i < item.message_count; i++) require(strlen(item.messages[i].role) > 0 && strlen(item.messages[i].content) > 0);
    data_item_free(&item);
    return 0;
}
