#include "support/tiny_vocabulary.h"

#include "loader/byte_map.h"

#include <stdio.h>
#include <string.h>

const char tiny_chat_template[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" TINY_SYSTEM
    "<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

static const char *const controls[TINY_CONTROLS] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

static const char *const merges[TINY_MERGES] = {
    "Ġ t", "h e", "i n", "r e", "o n", "Ġ a", "e r",  "a t", "e n",   "n d",   "Ġt he",  "Ġ s",   "e s",   "o r",
    "i s", "Ġ w", "o u", "i t", "l l", "a n", "in g", "a l", "Ġa nd", "Ġ o",   "Ġ is",   "e d",   "Ġt o",  "s t",
    "a r", "Ġ m", "Ġ f", "Ġ p", "l e", "o w", "o m",  "u s", "s y",   "sy st", "syst e", "us er", "he ll",
};

void tiny_vocabulary_make(tiny_vocabulary *vocab) {
    for (uint32_t i = 0; i < TINY_VOCAB; i++) {
        char *spelling = vocab->spellings[i];
        vocab->types[i] = i < TINY_CONTROLS ? 3 : 1;
        vocab->tokens[i] = spelling;
        memset(spelling, 0, sizeof vocab->spellings[i]);
        if (i < TINY_CONTROLS) {
            strcpy(spelling, controls[i]);
        } else if (i < TINY_FIRST_BYTE + 256) {
            char byte = (char)(i - TINY_FIRST_BYTE);
            byte_map_spell(&byte, 1, spelling);
        } else {
            const char *merge = merges[i - TINY_FIRST_BYTE - 256], *space = strchr(merge, ' ');
            snprintf(spelling, sizeof vocab->spellings[i], "%.*s%s", (int)(space - merge), merge, space + 1);
        }
    }
    vocab->merges = merges;
}
