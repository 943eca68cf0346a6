// Makes the seed corpora: make_corpus FOLDER (README.md). The same files every time.
#include "support/safetensors_image.h"
#include "support/sentencepiece_image.h"
#include "support/small_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char llama3_template[] =
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = \"26 Jul 2024\" %}{%- endif %}"
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}{{- \"Cutting Knowledge Date: December 2023\\n\" }}"
    "{{- \"Today Date: \" + date_string + \"\\n\\n\" }}{{- system_message }}{{- \"<|eot_id|>\" }}{# \\u0041 #}";

static void write_file(const char *folder, const char *name, const void *data, size_t size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
}

static void write_image(const char *folder, const char *name, byte_buffer bytes) {
    write_file(folder, name, bytes.data, bytes.size);
    byte_buffer_free(&bytes);
}

/// Every value type and every tensor type.
static byte_buffer make_types(void) {
    static const uint32_t types[] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1,
                                     TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K};
    static const char *const words[] = {"one", "", "three"};
    const double eight = 0.25;
    gguf_image image = {.alignment = 64};
    for (uint32_t type = GGUF_U8; type <= GGUF_F64; type++) {
        static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        char key[16];
        snprintf(key, sizeof key, "key.%u", type);
        if (sizes[type]) gguf_image_value(&image, key, type, &eight, sizes[type]);
    }
    gguf_image_u32(&image, "general.alignment", 64);
    gguf_image_strings(&image, "words", words, 3);
    gguf_image_array(&image, "halves", GGUF_U16, 4, &eight, sizeof eight);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const uint64_t shape[] = {1, 1, 256};
        char name[16];
        snprintf(name, sizeof name, "tensor.%zu", i);
        gguf_image_tensor(&image, name, types[i], 1 + i % 3, shape + 2 - i % 3, NULL);
    }
    return gguf_image_finish(&image);
}

static byte_buffer make_model(small_model_params params) {
    gguf_image image = small_model_image(&params);
    return gguf_image_finish(&image);
}

static byte_buffer make_tokenizer(small_model_params params) {
    gguf_image image = {0};
    small_model_add_tokenizer(&image, &params);
    return gguf_image_finish(&image);
}

static void make_safetensors(const char *folder) {
    static const char plain[] =
        "{'b': {'dtype': 'F16', 'shape': [2, 1], 'data_offsets': [8, 12]}, 'a': {'dtype': 'F32', 'shape': [2], "
        "'data_offsets': [0, 8]}, 'c': {'dtype': 'BF16', 'shape': [], 'data_offsets': [12, 14]}, 'e': {'dtype': 'F32', "
        "'shape': [0, 3], 'data_offsets': [14, 14]}}";
    static const char expert[] =
        "{'__metadata__': {'format': 'zsigma-expert', 'version': '1', 'name': 'math', 'description': 'sums', 'role': 'expert', "
        "'parameterisation': 'sigmoid', 'max_mult': '1.5', 'normalise': 'trace', 'sources': 'a,b', 'alpha': '0.5,0.5'}, "
        "'model.layers.0.mlp.up_proj.z': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}, "
        "'model.layers.0.mlp.up_proj.sketch': {'dtype': 'F32', 'shape': [8], 'data_offsets': [8, 40]}}";
    static const char dispatcher[] = "{'__metadata__': {'format': 'zsigma-expert', 'version': '1', 'role': 'dispatcher'}, "
                                     "'m.z': {'dtype': 'BF16', 'shape': [3], 'data_offsets': [0, 6]}}";
    static const char training[] =
        "{'__metadata__': {'format': 'zsigma-checkpoint', 'version': '1', 'step': '3', 'best_step': '2', 'worse': '1', 'evaluated': '4', "
        "'tokens': '100', 'first_valid': '0.25', 'best_valid': '0.5', 'setting batch': '4'}, "
        "'values': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}, 'best': {'dtype': 'F32', 'shape': [2], 'data_offsets': [8, "
        "16]}, "
        "'mean': {'dtype': 'F32', 'shape': [2], 'data_offsets': [16, 24]}, "
        "'square': {'dtype': 'F32', 'shape': [2], 'data_offsets': [24, 32]}}";
    static const uint8_t data[40] = {0, 0, 0x80, 0x3f};
    write_image(folder, "plain.safetensors", safetensors_image(plain, data, 14));
    write_image(folder, "expert.safetensors", safetensors_image(expert, data, 40));
    write_image(folder, "dispatcher.safetensors", safetensors_image(dispatcher, data, 6));
    write_image(folder, "checkpoint.safetensors", safetensors_image(training, data, 32));
}

/// The first byte is the target's choice of pre-tokenizer (bits 0 and 1) and of control tokens (bit 2).
static void make_texts(const char *folder) {
    static const char *const texts[][2] = {
        {"english", "\1The system's user isn't well: hello, I'LL be at 12345 and 6.\n\n  the end  \r\n"},
        {"controls", "\4<|im_start|>user\nhello<|im_end|><|endoftext|><|im_"},
        {"unicode", "\2na\xc3\xafve caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x99\x82\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd "
                    "\xe2\x80\x8b\xc2\xa0\xe3\x80\x80 \xd9\xa1\xd9\xa2\xd9\xa3 e\xcc\x81"},
        {"invalid", "\5ok \xff\xfe \xc3( \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf end"},
        {"blanks", "\6   \t\t \n \r\n\r\n          a    b\v\f      "},
        {"letters", "ttttttttttttttthehehehehehehe andandandandand usersystemusersystem"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) write_file(folder, texts[i][0], texts[i][1], strlen(texts[i][1]));
    char chat[1 + 2048];
    write_file(folder, "chatml", chat, (size_t)snprintf(chat, sizeof chat, "\4%s", tiny_chat_template));
    write_file(folder, "llama3", chat, (size_t)snprintf(chat, sizeof chat, "\2%s", llama3_template));
}

static const char tiny_json[] = "{'version': '1.0', 'truncation': null, 'added_tokens': [{'id': 5, 'content': '<s>', 'single_word': false, "
                                "'lstrip': false, 'rstrip': false, "
                                "'normalized': false, 'special': true}], 'normalizer': null, 'pre_tokenizer': {'type': 'Sequence', "
                                "'pretokenizers': [{'type': 'Digits', "
                                "'individual_digits': true}, {'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': true}]}, "
                                "'model': {'type': 'BPE', 'vocab': {'t': 0, 'h': 1, "
                                "'th': 2, 'e': 3, '\\u0120': 4}, 'merges': ['t h']}}";

static void write_text(const char *folder, const char *name, const char *text) {
    char *copy = malloc(strlen(text) + 1);
    if (!copy) exit(1);
    strcpy(copy, text);
    for (char *c = copy; *c; c++) *c = *c == '\'' ? '"' : *c;
    write_file(folder, name, copy, strlen(copy));
    free(copy);
}

static void make_tokenizer_files(const char *folder) {
    write_image(folder, "sentencepiece", sentencepiece_image(&(sentencepiece_image_params){.pieces = tiny_pieces}));
    write_image(folder, "sentencepiece-bytes",
                sentencepiece_image(&(sentencepiece_image_params){.pieces = tiny_pieces, .bytes = true, .no_prefix = true}));
    write_text(folder, "tiktoken", "dA== 0\naA== 1\ndGg= 2\nZQ== 3\nIA== 4\n");
    write_text(folder, "json", tiny_json);
}

/// Parts are separated by a byte 0 (fuzz_model_folder.c).
static void make_folders(const char *folder) {
    static const char config[] = "{\"architectures\": [\"MistralForCausalLM\"], \"num_hidden_layers\": 1, \"hidden_size\": 4, "
                                 "\"intermediate_size\": 4, \"num_attention_heads\": 1, "
                                 "\"num_key_value_heads\": 1, \"vocab_size\": 3, \"max_position_embeddings\": 8, \"tie_word_embeddings\": "
                                 "true, \"rope_parameters\": {\"rope_type\": \"llama3\", "
                                 "\"factor\": 8.0, \"rope_theta\": 1e6}, \"sliding_window\": 4}\0{\"weight_map\": {\"x\": "
                                 "\"a.safetensors\", \"y\": \"b.safetensors\"}}\0"
                                 "{\"chat_template\": [{\"name\": \"default\", \"template\": \"<|im_start|>\"}], \"bos_token\": "
                                 "{\"content\": \"t\"}}\0{\"eos_token_id\": [1, 2]}";
    write_file(folder, "mistral", config, sizeof config - 1);
}

static void add_tower_vector(gguf_image *image, const char *prefix, const char *end, uint64_t count) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, end);
    gguf_image_tensor(image, name, TENSOR_F32, 1, &count, NULL);
}

/// A matrix and its bias.
static void add_tower_matrix(gguf_image *image, const char *prefix, uint64_t out, uint64_t in) {
    char name[64];
    const uint64_t shape[] = {out, in};
    snprintf(name, sizeof name, "%s.weight", prefix);
    gguf_image_tensor(image, name, TENSOR_F16, 2, shape, NULL);
    add_tower_vector(image, prefix, ".bias", out);
}

/// One layer of 8 columns over 2 × 2 patches of 4 pixels, for embeddings of 4 columns (fuzz_mmproj.c).
static byte_buffer make_tower(bool idefics3) {
    static const char *const square[] = {"v.blk.0.attn_q", "v.blk.0.attn_k", "v.blk.0.attn_v", "v.blk.0.attn_out"}, *const norms[] = {
                                                                                                                        "v.blk.0.ln1",
                                                                                                                        "v.blk.0.ln2",
                                                                                                                        "v.post_ln",
                                                                                                                        "v.pre_ln"};
    static const struct {
        const char *key;
        uint32_t value;
    } counts[] = {{"block_count", 1},           {"image_size", 8},           {"patch_size", 4},
                  {"embedding_length", 8},      {"feed_forward_length", 12}, {"attention.head_count", 2},
                  {"projector.scale_factor", 2}};
    static const uint64_t patch[] = {8, 3, 4, 4}, positions[] = {4, 8};
    static const uint32_t pinpoints[] = {8, 16, 16, 8};
    gguf_image image = {0};
    gguf_image_string(&image, "general.architecture", "clip");
    gguf_image_string(&image, "clip.projector_type", idefics3 ? "idefics3" : "mlp");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char key[64];
        snprintf(key, sizeof key, "clip.vision.%s", counts[i].key);
        gguf_image_u32(&image, key, counts[i].value);
    }
    gguf_image_f32(&image, "clip.vision.attention.layer_norm_epsilon", 1e-5f);
    gguf_image_array(&image, "clip.vision.image_grid_pinpoints", GGUF_U32, 4, pinpoints, sizeof pinpoints);
    gguf_image_tensor(&image, "v.patch_embd.weight", TENSOR_F16, 4, patch, NULL);
    gguf_image_tensor(&image, "v.position_embd.weight", TENSOR_F32, 2, positions, NULL);
    for (size_t i = 0; i < 4; i++) {
        add_tower_matrix(&image, square[i], 8, 8);
        add_tower_vector(&image, norms[i], ".weight", 8);
        add_tower_vector(&image, norms[i], ".bias", 8);
    }
    add_tower_matrix(&image, "v.blk.0.ffn_up", 12, 8);
    add_tower_matrix(&image, "v.blk.0.ffn_down", 8, 12);
    add_tower_matrix(&image, idefics3 ? "mm.model.fc" : "mm.0", 4, idefics3 ? 32 : 8);
    if (!idefics3) add_tower_matrix(&image, "mm.2", 4, 4);
    if (!idefics3) add_tower_vector(&image, "model.image_newline", "", 4);
    return gguf_image_finish(&image);
}

static void make_data(const char *folder) {
    static const char *const lines[][2] = {
        {"prompt", "{\"id\": \"a\", \"prompt\": \"2 + 2? \\u00e9\", \"answer\": \"4\", \"choices\": [1.5e3, null, true]}"},
        {"messages", "{\"id\": 12, \"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}], "
                     "\"answer\": \"a\"}"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) write_file(folder, lines[i][0], lines[i][1], strlen(lines[i][1]));
}

/// The first byte is the target's choice of a data set (fuzz_published.c).
static void make_published(const char *folder) {
    static const char vqa[] = "\6{\"questions\": [{\"question\": \"what?\", \"question_id\": 7, \"image_id\": 2}]}\0"
                              "{\"annotations\": [{\"question_id\": 7, \"answers\": [{\"answer\": \"cat\"}, {\"answer\": \"dog\"}]}]}";
    static const char *const files[][2] = {
        {"math", "\1{'problem': 'What is $1$?', 'solution': 'It is \\\\boxed{1}.', 'level': 'Level 1', 'type': 'Algebra'}"},
        {"arc", "\2{'id': 'a', 'question': {'stem': 'Which?', 'choices': [{'text': 'x', 'label': 'A'}, {'text': 'y', 'label': 'B'}]}, "
                "'answerKey': 'B'}"},
        {"humaneval", "\3{'task_id': 'HumanEval/0', 'prompt': 'def f(x):', 'entry_point': 'f', 'canonical_solution': ' return x', "
                      "'test': 'def check(c): assert c(1) == 1'}"},
        {"mbpp", "\4{'task_id': 2, 'text': 'Write f.', 'code': 'def f(): pass', 'test_list': ['assert f() is None'], "
                 "'test_setup_code': '', 'challenge_test_list': []}"},
        {"mbpp-pro", "\5{'id': 0, 'raw_problem': 'Write f.', 'new_problem': 'Write g.', 'raw_solution': 'def f(): pass', "
                     "'new_solution': 'def g(): f()', 'test_code': 'assert g() is None'}"},
        {"textvqa", "\7{'data': [{'question': 'what?', 'image_id': 'ab', 'question_id': 3, 'answers': ['x', 'y']}]}"},
        {"easy-vqa", "\10[['what color?', 'red', 0], ['is it blue?', 'no', 1]]"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) write_text(folder, files[i][0], files[i][1]);
    static const char gsm8k[] = "\0{\"question\": \"How many?\", \"answer\": \"<<1+1=2>>\\n#### 2\"}\n\nnonsense\n";
    write_file(folder, "gsm8k", gsm8k, sizeof gsm8k - 1);
    write_file(folder, "vqa", vqa, sizeof vqa - 1);
}

int main(int argc, char **argv) {
    char folder[900];
    if (argc != 2) {
        fprintf(stderr,
                "usage: make_corpus FOLDER, which has folders gguf, safetensors, tokenizer, tokenizer_file, model_folder, mmproj, data "
                "and published\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/gguf", argv[1]);
    write_image(folder, "types.gguf", make_types());
    write_image(folder, "model.gguf", make_model((small_model_params){.vocab = 12}));
    write_image(folder, "factored.gguf", make_model((small_model_params){.vocab = 5, .factored = true, .untied = true}));
    write_image(folder, "tokenizer.gguf", make_tokenizer((small_model_params){.pre = "gpt-2"}));
    write_image(folder, "llama3.gguf", make_tokenizer((small_model_params){.vocab = 260, .pre = "llama-bpe", .chat = llama3_template}));
    snprintf(folder, sizeof folder, "%s/safetensors", argv[1]);
    make_safetensors(folder);
    snprintf(folder, sizeof folder, "%s/tokenizer", argv[1]);
    make_texts(folder);
    snprintf(folder, sizeof folder, "%s/tokenizer_file", argv[1]);
    make_tokenizer_files(folder);
    snprintf(folder, sizeof folder, "%s/model_folder", argv[1]);
    make_folders(folder);
    snprintf(folder, sizeof folder, "%s/mmproj", argv[1]);
    write_image(folder, "llava-next.gguf", make_tower(false));
    write_image(folder, "idefics3.gguf", make_tower(true));
    snprintf(folder, sizeof folder, "%s/data", argv[1]);
    make_data(folder);
    snprintf(folder, sizeof folder, "%s/published", argv[1]);
    make_published(folder);
    return 0;
}
