/// The fixed texts of a Jinja template: what stands between its tags, and the string literals inside them. Nothing is
/// evaluated.
#ifndef LOADER_JINJA_TEXT_H
#define LOADER_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/// A walk over a template; zero but for the first two at the start.
typedef struct jinja_walk {
    const char *source;
    size_t size;
    size_t at;
    bool inside;  // of a tag: {{ … }} or {% … %}
    size_t start; // where the text found last begins in the source: at its quote if literal
    bool literal; // it is a string literal
    char *text;   // [text_size], escapes resolved, terminated; valid until the next call
    size_t text_size;
    size_t capacity;
} jinja_walk;

/// Finds the next text. False at the end of the template, or when memory is short (out_of_memory).
bool jinja_walk_next(jinja_walk *walk, bool *out_of_memory);
void jinja_walk_free(jinja_walk *walk);

#endif
