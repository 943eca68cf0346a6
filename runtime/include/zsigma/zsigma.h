/// zsigma: self-adapting language models (Transformer², arXiv 2501.06252) on any Vulkan 1.3 device.
///
/// Weights are kept as W = U diag(σ) Vᵀ; an expert is a vector z per matrix and W' = U diag(σ ⊙ z) Vᵀ. A question is
/// answered in two passes: the first decides which z fits, the second answers under it.
///
/// Objects, and who outlives whom: zs_device > zs_model > zs_engine > zs_session; zs_expert and zs_expert_set live on
/// the host and may be freed as soon as they are attached. Every create function takes a params struct whose zero is the
/// sensible default (NULL stands for all zero); every destroy function takes the handle's address, accepts NULL inside
/// and leaves NULL.
///
/// Errors: functions return a zs_status; a message (what, where, what to do) is written into *error, which may be NULL.
/// On failure output parameters are left NULL or untouched. The library never prints, never exits and never reads the
/// environment.
///
/// Threads: a zs_device and a zs_model may be shared between threads; a zs_engine and its sessions belong to one thread
/// at a time. zs_engine_cancel may be called from anywhere, signal handlers included.
#ifndef ZSIGMA_H
#define ZSIGMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZS_VERSION "0.1.0"

// ---- errors and logging --------------------------------------------------------------------------------------------

typedef enum zs_status {
    ZS_OK = 0,
    ZS_ERROR_ARGUMENT,    // the caller passed something that makes no sense
    ZS_ERROR_IO,          // a file cannot be opened, read or written
    ZS_ERROR_FORMAT,      // a file is damaged or not of the expected kind
    ZS_ERROR_UNSUPPORTED, // a sound file or request that this version cannot serve
    ZS_ERROR_MEMORY,      // host memory
    ZS_ERROR_DEVICE_MEMORY,
    ZS_ERROR_NO_DEVICE, // no Vulkan loader, no device, or none that meets the baseline
    ZS_ERROR_DEVICE_LOST,
    ZS_ERROR_TIMEOUT,
    ZS_ERROR_CONTEXT,   // more tokens than the context holds
    ZS_ERROR_MISMATCH,  // an expert of another model
    ZS_ERROR_NUMERIC,   // NaN or infinity where a number is needed
    ZS_ERROR_CANCELLED, // zs_engine_cancel or a callback asked to stop
    ZS_ERROR_EXISTS,    // an output file exists and force was not given
} zs_status;

typedef struct zs_error {
    zs_status status;
    char message[1024]; // UTF-8, one line, no trailing full stop
} zs_error;

/// Writes status and a printf-style message into *error (if not NULL) and returns status. Open to callbacks.
zs_status zs_error_set(zs_error *error, zs_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
#ifdef __clang_analyzer__ // clang-tidy sees one file at a time: this is what the function returns
#define zs_error_set(error, status, ...) ((zs_error_set)(error, status, __VA_ARGS__), (status))
#endif

typedef enum zs_log_level { ZS_LOG_ERROR, ZS_LOG_WARNING, ZS_LOG_INFO, ZS_LOG_DEBUG } zs_log_level;

/// Where the library's messages go. write may be called from any thread; NULL drops them.
typedef struct zs_log {
    void (*write)(void *user, zs_log_level level, const char *message);
    void *user;
} zs_log;

/// Progress of long work. done/total in a unit of the work's own; return false to cancel.
typedef struct zs_progress {
    bool (*report)(void *user, const char *what, double done, double total);
    void *user;
} zs_progress;

// ---- devices -------------------------------------------------------------------------------------------------------

/// Features above the Vulkan 1.3 baseline. Each is probed, self-tested and can be masked off.
typedef enum zs_tier {
    ZS_TIER_SUBGROUP = 1 << 0, // arithmetic subgroup operations, size control
    ZS_TIER_STORAGE = 1 << 1,  // 16- and 8-bit storage; on CPU devices 64-bit integers too
    ZS_TIER_HALF = 1 << 2,     // fp16 arithmetic
    ZS_TIER_DOT = 1 << 3,      // integer dot product, accelerated but on CPU devices
    ZS_TIER_MATRIX = 1 << 4,   // VK_KHR_cooperative_matrix
    ZS_TIER_MATRIX2 = 1 << 5,  // VK_NV_cooperative_matrix2
    ZS_TIER_CHAIN = 1 << 6,    // CPU devices: workgroups that have begun go on, and may wait for others in a loop of any length
    ZS_TIER_ALL = (1 << 7) - 1,
} zs_tier;

typedef enum zs_device_type { ZS_DEVICE_DISCRETE, ZS_DEVICE_INTEGRATED, ZS_DEVICE_VIRTUAL, ZS_DEVICE_CPU, ZS_DEVICE_OTHER } zs_device_type;

typedef struct zs_device_info {
    uint32_t index; // order of enumeration
    char name[256];
    char uuid[33]; // device UUID as 32 hex digits
    zs_device_type type;
    char driver[256];     // driver name and version as the driver tells it
    uint32_t api_version; // VK_MAKE_API_VERSION encoding
    uint32_t tiers;       // ZS_TIER_* bits the driver offers
    uint32_t subgroup_size;
    uint64_t memory_bytes; // the largest device-local heap
    uint64_t free_bytes;   // by VK_EXT_memory_budget where present, else memory_bytes
    bool usable;           // meets the baseline
    char missing[256];     // what the baseline lacks, comma separated; empty when usable
} zs_device_info;

/// Lists what Vulkan sees, devices below the baseline included. *infos is malloc'ed, the caller frees it.
/// Errors: ZS_ERROR_NO_DEVICE when there is no Vulkan loader or no driver at all.
zs_status zs_device_list(zs_device_info **infos, uint32_t *count, zs_error *error);

typedef struct zs_device zs_device;

typedef struct zs_device_params {
    const char *device;    // part of a name (any case), an index, or a UUID; NULL: chosen by type and free memory
    uint32_t disable;      // ZS_TIER_* bits to leave unused although present
    const char *cache_dir; // folder for pipeline caches and self-test results (made when missing); NULL: none kept
    bool validate;         // turn the Khronos validation layer on; its messages are logged as errors
    bool skip_self_test;
    uint64_t memory_limit; // bytes of device memory the process may use; 0: what the driver says
    uint64_t block_limit;  // largest single allocation in bytes; 0: what the driver says (tests set it small)
    uint32_t timeout_ms;   // longest wait for one submit; 0: 60 s, on a CPU, which other work may keep busy, 600 s
    zs_log log;
} zs_device_params;

/// Opens a device. Errors: ZS_ERROR_NO_DEVICE (names what is missing), ZS_ERROR_ARGUMENT (no such device).
zs_status zs_device_create(const zs_device_params *params, zs_device **device, zs_error *error);
void zs_device_destroy(zs_device **device);
const zs_device_info *zs_device_get_info(const zs_device *device);
/// Tiers in use: offered, not masked, self-test passed.
uint32_t zs_device_get_tiers(const zs_device *device);
/// Validation messages so far (0 unless params.validate).
uint32_t zs_device_validation_count(const zs_device *device);

// ---- tokenizers ----------------------------------------------------------------------------------------------------

typedef struct zs_tokenizer zs_tokenizer;

/// Reads a tokenizer from a GGUF file, a Hugging Face folder, or a tokenizer's own file: tokenizer.json, or a tokenizer.model
/// of sentencepiece's or tiktoken's. Immutable, shareable between threads. Errors: ZS_ERROR_IO, ZS_ERROR_FORMAT, ZS_ERROR_UNSUPPORTED (a
/// kind of tokenizer that this version does not have, named), ZS_ERROR_MEMORY.
zs_status zs_tokenizer_load(const char *path, zs_tokenizer **tokenizer, zs_error *error);
void zs_tokenizer_destroy(zs_tokenizer **tokenizer);

/// Text to token ids. text need not be valid UTF-8 (stray bytes become byte tokens). parse_special: control tokens
/// spelled in the text count as such; otherwise text stays text. *ids is malloc'ed, the caller frees it (NULL if none).
zs_status zs_tokenizer_encode(const zs_tokenizer *tokenizer, const char *text, size_t length, bool parse_special, uint32_t **ids,
                              size_t *count, zs_error *error);

/// Bytes of one token, not terminated; they may end inside a UTF-8 character. Control tokens give their spelling only
/// if special. Returns the length in bytes; *bytes points into the tokenizer. An id out of range gives 0.
size_t zs_tokenizer_token_bytes(const zs_tokenizer *tokenizer, uint32_t id, bool special, const char **bytes);
uint32_t zs_tokenizer_vocab_size(const zs_tokenizer *tokenizer);
/// Whether a token ends an answer (eos, <|im_end|>, <|eot_id|>, …).
bool zs_tokenizer_is_end(const zs_tokenizer *tokenizer, uint32_t id);

typedef struct zs_message {
    const char *role;    // "system", "user" or "assistant"
    const char *content; // UTF-8 text; control tokens in it stay text
} zs_message;

/// Renders a conversation in the model's chat template and tokenises it: structure as control tokens, contents as plain
/// text. A default system message is added when the template has one and messages do not start with "system".
/// open_answer appends the header of the assistant's turn. *ids is malloc'ed, the caller frees it.
zs_status zs_tokenizer_encode_chat(const zs_tokenizer *tokenizer, const zs_message *messages, size_t message_count, bool open_answer,
                                   uint32_t **ids, size_t *count, zs_error *error);

// ---- models --------------------------------------------------------------------------------------------------------

typedef struct zs_model zs_model;

/// Where a factored model's U and Vᵀ are kept. Elsewhere than on the device they serve to compose weights from only (ZS_MODE_COMPOSED).
typedef enum zs_place {
    ZS_PLACE_DEFAULT = 0, // on the device; a plan chooses
    ZS_PLACE_DEVICE,
    ZS_PLACE_HOST, // in host memory
    ZS_PLACE_FILE, // in the model's file, which stays mapped; it must not change
} zs_place;

typedef struct zs_model_params {
    zs_progress progress;
    zs_place factors;          // of a factored model; a dense one has none
    const char *mmproj;        // a GGUF file with the image tower of a model whose own file has none (llama.cpp's mmproj); NULL: none
    const char *chat_template; // a family (chatml, qwen2, llama2, llama3, mistral, vicuna, gemma) instead of the model's own; NULL: that
} zs_model_params;

typedef struct zs_model_info {
    char architecture[64];
    char name[128];
    bool factored;
    bool images;          // takes images beside text
    uint32_t image_token; // stands for an image in ids (zs_prompt); UINT32_MAX: none does
    char weight_type[16]; // of the first layer's matrices or factors on the device: "f16", "q8", "q4", …
    uint32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context; // context: the longest the model was made for
    uint32_t matrices;                                                       // adapted matrices
    uint64_t ranks;                                                          // sum of their ranks: length of one expert
    uint64_t parameters, weight_bytes;                                       // bytes on the device
} zs_model_info;

/// Loads a dense or factored GGUF model, or a Hugging Face folder (config.json, safetensors), onto a device. Immutable afterwards; engines
/// of any thread may share it. Sizes are checked against the device's memory first. Errors: ZS_ERROR_IO, ZS_ERROR_FORMAT (a damaged file),
/// ZS_ERROR_UNSUPPORTED (an architecture or type that this version does not have, named), ZS_ERROR_DEVICE_MEMORY, ZS_ERROR_NUMERIC, …
zs_status zs_model_load(zs_device *device, const char *path, const zs_model_params *params, zs_model **model, zs_error *error);
void zs_model_destroy(zs_model **model);
const zs_model_info *zs_model_get_info(const zs_model *model);
const zs_tokenizer *zs_model_get_tokenizer(const zs_model *model);
/// How many tokens an image of a size takes in a prompt, the tags around it too. Errors: ZS_ERROR_ARGUMENT (a model without a tower, or
/// with one but without a tokenizer), ZS_ERROR_UNSUPPORTED (a size that the model's preprocessing refuses).
zs_status zs_model_count_image_tokens(const zs_model *model, uint32_t width, uint32_t height, uint32_t *tokens, zs_error *error);

// ---- images --------------------------------------------------------------------------------------------------------

/// A picture on the host: 8-bit red, green and blue, upright. Immutable, shareable between threads.
typedef struct zs_image zs_image;

/// Reads a PNG, JPEG, BMP, GIF (its first frame) or PNM file of at most 100 megapixels; the size is looked at first. Pictures are turned as
/// their EXIF data say; transparent ones are put on white; of 16 bits a channel the upper 8 count.
/// Errors: ZS_ERROR_FORMAT (damaged or truncated), ZS_ERROR_UNSUPPORTED (another kind of file, too large).
zs_status zs_image_load(const char *path, zs_image **image, zs_error *error);
/// The same from a file's bytes. name: what messages call it; NULL: "the image".
zs_status zs_image_load_memory(const void *data, size_t size, const char *name, zs_image **image, zs_error *error);
/// From pixels [height, width, 3], which are copied.
zs_status zs_image_create(const uint8_t *pixels, uint32_t width, uint32_t height, zs_image **image, zs_error *error);
void zs_image_destroy(zs_image **image);
void zs_image_get_size(const zs_image *image, uint32_t *width, uint32_t *height);

// ---- experts -------------------------------------------------------------------------------------------------------

typedef struct zs_expert zs_expert;

typedef struct zs_expert_info {
    const char *name, *description, *base_model;
    bool dispatcher; // role
    bool sigmoid;    // parameterisation: sigmoid(p)·max_mult instead of z itself
    bool trace;      // normalise: Σσ is kept
    double max_mult;
    uint32_t matrix_count;
    uint64_t value_count; // sum of ranks
} zs_expert_info;

/// Reads an expert file (safetensors). Shapes are checked when it is attached to a model. Errors: ZS_ERROR_IO, ZS_ERROR_FORMAT (no expert,
/// or a damaged one), ZS_ERROR_NUMERIC (a value that is no number).
zs_status zs_expert_load(const char *path, zs_expert **expert, zs_error *error);
void zs_expert_destroy(zs_expert **expert);
const zs_expert_info *zs_expert_get_info(const zs_expert *expert);
/// Writes an expert file, whole or not at all. Errors: ZS_ERROR_EXISTS (unless force), ZS_ERROR_IO.
zs_status zs_expert_save(const zs_expert *expert, const char *path, bool force, zs_error *error);
/// i-th matrix: its canonical name ("model.layers.0.mlp.gate_proj"), rank and multipliers m (after the sigmoid). Valid
/// while the expert lives; false when i is out of range.
bool zs_expert_matrix(const zs_expert *expert, uint32_t i, const char **name, uint32_t *rank, const float **multipliers);

/// Below this cosine, sketches are of different base models.
#define ZS_SAME_BASE 0.9

/// Cosine between the sketches of the matrices that two experts share: below ZS_SAME_BASE they were made for different models.
/// False when they share no sketches.
bool zs_expert_compare(const zs_expert *a, const zs_expert *b, double *cosine);

/// How much of an expert a model can take.
typedef struct zs_expert_fit {
    uint32_t matrices; // of the expert
    uint32_t by_name;  // that the model has in factored form
    uint32_t by_shape; // of those: with as many singular values as the expert has numbers. These are applied
    uint64_t values;   // their numbers together
    bool has_cosine;   // there are sketches of the same matrices on both sides
    double cosine;     // between them; below ZS_SAME_BASE the expert was made for another model
} zs_expert_fit;
void zs_expert_get_fit(const zs_expert *expert, const zs_model *model, zs_expert_fit *fit);
/// Why the expert's i-th matrix (as zs_expert_matrix counts) cannot be put on the model, in words; NULL: it can, or i is out of range.
const char *zs_expert_misfit(const zs_expert *expert, const zs_model *model, uint32_t i);

/// Puts the numbers of every matrix into a random order: the paper's control of a transfer, which
/// keeps their values and takes away which singular value each belongs to. The order comes from the seed and the matrix's name and length
/// alone, so a mix of shuffled experts is the mix shuffled. Errors: ZS_ERROR_MEMORY.
zs_status zs_expert_shuffle(zs_expert *expert, uint64_t seed, zs_error *error);

/// Mixes experts: z' = Σ α z, absent matrices count as z = 1 (DESIGN: Mix). alpha [count], or [count, matrix_count of
/// the union in name order] with per_matrix. All-zero α is ZS_ERROR_ARGUMENT. model gives σ where trace needs it; NULL is
/// allowed when all experts agree on normalise.
zs_status zs_expert_mix(const zs_model *model, const zs_expert *const *experts, uint32_t count, const double *alpha, bool per_matrix,
                        zs_expert **mix, zs_error *error);

typedef struct zs_expert_set zs_expert_set;

/// Reads all expert files (*.safetensors) of a folder, sorted by name; at most one dispatcher. Errors: as of zs_expert_load,
/// ZS_ERROR_FORMAT (no name of 1 to 63 bytes, two of one name, two dispatchers), ZS_ERROR_ARGUMENT (no expert there).
zs_status zs_expert_set_load(const char *folder, zs_expert_set **set, zs_error *error);
void zs_expert_set_destroy(zs_expert_set **set);
/// Number of experts without the dispatcher.
uint32_t zs_expert_set_count(const zs_expert_set *set);
const zs_expert *zs_expert_set_get(const zs_expert_set *set, uint32_t i);
/// By name; NULL when absent.
const zs_expert *zs_expert_set_find(const zs_expert_set *set, const char *name);
const zs_expert *zs_expert_set_dispatcher(const zs_expert_set *set);
/// zs_expert_shuffle for all of them, the dispatcher too.
zs_status zs_expert_set_shuffle(zs_expert_set *set, uint64_t seed, zs_error *error);

// ---- engine --------------------------------------------------------------------------------------------------------

typedef enum zs_precision {
    ZS_PRECISION_DEFAULT = 0, // fast on GPUs, exact on CPU devices
    ZS_PRECISION_EXACT,       // f32 activations and KV
    ZS_PRECISION_FAST,        // f16, and integers of 16 bits, where it is safe
} zs_precision;

/// How keys and values are kept. ZS_KV_Q8_0 is for long contexts: 9 bits a value (bytes, with an f32 scale for 32 of them); heads of a
/// multiple of 32.
typedef enum zs_kv_type { ZS_KV_DEFAULT = 0 /* f32 in precision exact, f16 in fast */, ZS_KV_F32, ZS_KV_F16, ZS_KV_Q8_0 } zs_kv_type;

/// How z is applied to a factored model.
typedef enum zs_mode {
    ZS_MODE_DEFAULT = 0, // factored where the factors lie on the device, else composed; dense for a dense model
    ZS_MODE_FACTORED,    // as an epilogue between Vᵀ and U: any mix of experts in a step, switching for nothing
    ZS_MODE_COMPOSED,    // W' = U diag(σ ⊙ z) Vᵀ made dense for one expert at a time; another one's turn makes it anew
} zs_mode;

/// Of composed weights. Quantised ones are rounded once, from f32, as ggml does.
typedef enum zs_composed_type {
    ZS_COMPOSED_DEFAULT = 0, // f16; a plan chooses
    ZS_COMPOSED_F16,
    ZS_COMPOSED_Q8_0,
    ZS_COMPOSED_Q4_0,
} zs_composed_type;

typedef struct zs_engine zs_engine;

typedef struct zs_engine_params {
    zs_precision precision;
    zs_kv_type kv;
    zs_mode mode;
    zs_composed_type composed; // ZS_MODE_COMPOSED
    uint32_t context;          // longest sequence in tokens; 0: min(model's, 4096)
    uint32_t max_sessions;     // sessions that may be live at once; 0: 8
    uint32_t kv_tokens;        // tokens the KV pool holds over all sessions and cached prefixes; 0: 2 · context
    uint32_t max_experts;      // rows of the expert table besides the base; 0: 16
    uint32_t max_rows;         // rows of one prefill step; 0: 512
    bool deterministic;        // a row's bits do not depend on the other rows of its step
} zs_engine_params;

/// Memory is sized first: what does not fit is ZS_ERROR_DEVICE_MEMORY with the numbers and what would fit.
zs_status zs_engine_create(zs_model *model, const zs_engine_params *params, zs_engine **engine, zs_error *error);
/// Destroys its sessions too: their handles are dead.
void zs_engine_destroy(zs_engine **engine);
zs_model *zs_engine_get_model(const zs_engine *engine);
/// The running call returns ZS_ERROR_CANCELLED at its next step, and so does every later one until zs_engine_resume. Async-signal-safe.
void zs_engine_cancel(zs_engine *engine);
/// Clears a cancellation.
void zs_engine_resume(zs_engine *engine);
/// Context, precision, KV bytes and so on as chosen.
typedef struct zs_engine_info {
    uint32_t context, max_sessions, max_rows, kv_tokens;
    zs_precision precision;
    zs_kv_type kv;
    const char *mode; // "dense", "factored", "composed:f16", "composed:q8_0", "composed:q4_0"
    uint64_t kv_bytes, workspace_bytes;
    uint64_t composed_bytes; // composed weights and what makes them
    uint32_t decode_dispatches_per_layer;
} zs_engine_info;
const zs_engine_info *zs_engine_get_info(const zs_engine *engine);

/// Puts an expert into the engine's table and returns its id (0 is the base model). Checks names, lengths and, where both have
/// them, sketches: matrices that the model does not have in factored form, and another base, are ZS_ERROR_MISMATCH. With transfer they are
/// accepted, as long as something can be applied: what the model does not have is left out (zs_expert_get_fit). Another length of a
/// matrix that both have is ZS_ERROR_MISMATCH always. Attaching the same contents twice gives one id.
zs_status zs_engine_attach_expert(zs_engine *engine, const zs_expert *expert, bool transfer, uint32_t *id, zs_error *error);
/// Frees a table row. A session that still uses it is refused its next step (ZS_ERROR_ARGUMENT).
void zs_engine_detach_expert(zs_engine *engine, uint32_t id);
/// Composed mode: makes the weights of an expert (0: the base model) now, if they are not the loaded ones; zs_engine_run and
/// zs_engine_score do it when the turn comes. Nothing to do in the other modes. Errors: ZS_ERROR_ARGUMENT (no such id), ZS_ERROR_CANCELLED,
/// and those of the device; the next use of an expert makes its weights anew.
zs_status zs_engine_load_expert(zs_engine *engine, uint32_t id, zs_error *error);

// ---- plans ---------------------------------------------------------------------------------------------------------

typedef struct zs_plan_params {
    zs_engine_params engine; // as the engine will be created; mode and composed, where given, are kept to
    zs_place factors;        // where given, kept to
    uint32_t tokens;         // expected to be made between two changes of expert; 0: 64
    const char *mmproj;      // as in zs_model_params
} zs_plan_params;

/// How a model would be run on a device, and what that takes where. Bytes are those of one engine.
typedef struct zs_plan {
    zs_mode mode; // ZS_MODE_DEFAULT for a dense model
    zs_composed_type composed;
    zs_place factors;
    char mode_name[16]; // as zs_engine_info.mode
    bool fits;
    uint64_t free_bytes, device_bytes;  // free on the device; the sum of the next seven
    uint64_t weight_bytes;              // what is not factored: embedding, norms, head, dense matrices
    uint64_t factor_bytes;              // U and Vᵀ, if they lie there
    uint64_t composed_bytes;            // W'
    uint64_t expert_bytes;              // the table of σ ⊙ z
    uint64_t kv_bytes, workspace_bytes; // work space: activations, and what composing needs
    uint64_t image_bytes;               // features of images, and what a prompt full of them takes to encode; taken with the first one
    uint64_t host_bytes;                // factors in host memory
    uint64_t file_bytes;                // factors that stay in the file
    double compose_flops, compose_ms;   // of making W' once, estimated; 0 for a dense model
    double break_even_tokens;           // so many tokens after a change of expert composed mode has caught up; 0: it never does
    uint32_t reason_count;
    char reasons[6][192];
} zs_plan;

/// Decides on mode, composed type and the factors' place by bytes, operations, expected tokens and free memory; nothing is loaded or
/// allocated on the device. zs_model_load and zs_engine_create are then given what was chosen. A plan that does not fit is told by `fits`;
/// errors: those of reading the file, and ZS_ERROR_ARGUMENT (a mode that the model cannot have).
zs_status zs_plan_file(zs_device *device, const char *path, const zs_plan_params *params, zs_plan *plan, zs_error *error);

// ---- sessions ------------------------------------------------------------------------------------------------------

typedef struct zs_sampling {
    float temperature;        // 0: greedy, ties to the lowest id
    uint32_t top_k;           // 0: off
    float top_p;              // 0 or 1: off; exact
    float min_p;              // 0: off
    float repetition_penalty; // 0 or 1: off; divides positive, multiplies negative logits of tokens seen
    uint64_t seed;            // numbers drawn by counter from (seed, zs_session_params.stream, position)
} zs_sampling;

/// A prompt that may hold images.
typedef struct zs_prompt {
    const char *text; // in which control tokens count and "<image>" stands where each image goes; NULL: ids
    size_t length;
    const uint32_t *ids; // with the model's image token once for each image
    size_t id_count;
    const zs_image *const *images; // [image_count]
    size_t image_count;
    uint32_t expert; // table id: under whose z the tower sees, where it is factored
} zs_prompt;

/// zs_tokenizer_encode_chat with images in front of the last message's text: ids with the model's image token once for each image, as
/// zs_prompt takes them. *ids is malloc'ed, the caller frees it. Errors: ZS_ERROR_ARGUMENT (no message,
/// a model without a tokenizer or a tower).
zs_status zs_model_encode_chat(const zs_model *model, const zs_message *messages, size_t message_count, size_t image_count, uint32_t **ids,
                               size_t *count, zs_error *error);

/// Token ids of a prompt, images encoded: the rows of features that stand for an image have ids of their own, from the vocabulary's size
/// on. Sessions and zs_engine_score take them like others. An image that the engine still keeps is not encoded again. Images are kept as
/// long as a session has them in its tokens; others make room for new ones when more rows than the engine's kv_tokens are needed, and
/// their ids are not known any more. *ids is malloc'ed, the caller frees it. Errors: ZS_ERROR_ARGUMENT (a model without a tower, another
/// number of marks than of images), ZS_ERROR_CONTEXT (more tokens than the context holds).
zs_status zs_engine_encode_prompt(zs_engine *engine, const zs_prompt *prompt, uint32_t **ids, size_t *count, zs_error *error);

typedef struct zs_session zs_session;

typedef struct zs_session_params {
    uint32_t expert; // table id
    zs_sampling sampling;
    uint64_t stream; // which random stream; sessions with the same seed and stream draw the same numbers
    bool ignore_end; // go on after an end token, for benches
} zs_session_params;

/// params are copied. Errors: ZS_ERROR_ARGUMENT (max_sessions are live already, an expert that is not attached), ZS_ERROR_MEMORY.
zs_status zs_session_create(zs_engine *engine, const zs_session_params *params, zs_session **session, zs_error *error);
void zs_session_destroy(zs_session **session);

/// Sets the session's whole token history, e.g. the chat so far and a new question: the part that is cached under the
/// same key (model, expert, mode, precision, tokens) is not computed again. Nothing runs yet. Errors: ZS_ERROR_CONTEXT,
/// ZS_ERROR_ARGUMENT (empty, id out of range).
zs_status zs_session_set_prompt(zs_session *session, const uint32_t *ids, size_t count, zs_error *error);
/// Changes expert; the history will be re-read, because keys and values depend on z. Errors: ZS_ERROR_ARGUMENT (not attached).
zs_status zs_session_set_expert(zs_session *session, uint32_t expert, zs_error *error);
/// Restricts sampling to some ids; count 0 lifts it. Copied.
zs_status zs_session_restrict(zs_session *session, const uint32_t *ids, size_t count, zs_error *error);
/// Tokens that the next ones may be, for example an answer that was given before (speculative decoding): up to 15 at a time are computed in
/// one step, and those that the session draws by itself are taken, so the answer is the same without, up to rounding. The rest is
/// forgotten at the first that differs, and with a new prompt. Not looked at under a repetition penalty or in an engine that is
/// deterministic. Copied. Errors: ZS_ERROR_ARGUMENT (id out of range).
zs_status zs_session_set_draft(zs_session *session, const uint32_t *ids, size_t count, zs_error *error);
/// Asks for up to count more tokens; stops earlier at an end token (which is the last one returned) or a full context.
zs_status zs_session_generate(zs_session *session, uint32_t count, zs_error *error);
/// All tokens: prompt and answer. Valid until the session's next call.
const uint32_t *zs_session_tokens(const zs_session *session, size_t *count);
size_t zs_session_prompt_count(const zs_session *session);
/// Log-probabilities of the generated tokens, beside tokens[prompt_count…].
const float *zs_session_logprobs(const zs_session *session, size_t *count);
bool zs_session_is_done(const zs_session *session);

/// Called for every new token of any session, in order; return false to stop that session. It may create sessions, destroy
/// any, and give them new prompts, drafts, experts, restrictions and work (which counts more than the false it returns); it must not
/// call zs_engine_run or zs_engine_score.
typedef bool (*zs_token_callback)(void *user, zs_session *session, uint32_t token);

/// Steps all sessions with work together until each is done; in composed mode those under one expert, then those under another,
/// beginning with the one whose weights are loaded. One recorded command buffer per decode step, submitted
/// ahead; while one computes its prompt up to half of max_rows others go on in the same steps, unless the engine is deterministic. Errors:
/// ZS_ERROR_NUMERIC (NaN logits; that session is stopped), ZS_ERROR_CANCELLED, ZS_ERROR_CONTEXT (kv_tokens used up), ZS_ERROR_DEVICE_LOST,
/// ZS_ERROR_TIMEOUT. After an error another call goes on with the sessions that are not done.
zs_status zs_engine_run(zs_engine *engine, zs_token_callback on_token, void *user, zs_error *error);

/// One continuation to be scored: log π(continuation | prefix) under an expert.
typedef struct zs_score_item {
    uint32_t expert;
    const uint32_t *prefix; // ids, prefix_count ≥ 1; items with equal prefixes share one computation
    size_t prefix_count;
    const uint32_t *continuation;
    size_t continuation_count; // ≥ 1
    float *logprobs;           // out [continuation_count], natural logarithm
} zs_score_item;
typedef struct zs_token_logprob {
    uint32_t id;
    float logprob;
} zs_token_logprob;
/// Scores items in as few steps as possible. top [top_count] (may be NULL) receives the likeliest first tokens after
/// items[0]'s prefix. Errors: ZS_ERROR_ARGUMENT (no token to score, an id out of range), ZS_ERROR_CONTEXT, and those of zs_engine_run.
zs_status zs_engine_score(zs_engine *engine, const zs_score_item *items, size_t count, zs_token_logprob *top, size_t top_count,
                          zs_error *error);

/// Time since the last reset, for timings and benches.
typedef struct zs_engine_stats {
    uint64_t prefill_tokens, cached_tokens, decode_tokens, steps, submits;
    uint64_t draft_tokens, accepted_tokens; // computed ahead; of them, those that were drawn (decode_tokens does not count them)
    double prefill_ms, decode_ms;           // wall clock; decode that goes along with others' prompts counts as prefill
    double step_ms;                         // the device's own time of the last decode step, by timestamps; 0 without
    uint32_t composes;                      // how often weights were composed
    double compose_ms;                      // wall clock
    uint64_t images, image_tiles;           // encoded
    double image_ms;                        // wall clock
} zs_engine_stats;
const zs_engine_stats *zs_engine_get_stats(const zs_engine *engine);
void zs_engine_reset_stats(zs_engine *engine);

// ---- two passes ----------------------------------------------------------------------------------------------------

typedef enum zs_strategy {
    ZS_STRATEGY_NONE,       // base weights
    ZS_STRATEGY_FIXED,      // params.expert
    ZS_STRATEGY_PROMPT,     // pass 1 under the base weights; in composed mode under those that are loaded, the base if none are
    ZS_STRATEGY_CLASSIFIER, // pass 1 under the dispatcher expert, which is shown the question's images too
    ZS_STRATEGY_MIX,        // params.alpha
} zs_strategy;

typedef enum zs_dispatch {
    ZS_DISPATCH_SCORE /* labels scored; less their prior, but under a dispatcher */,
    ZS_DISPATCH_GENERATE /* as in the paper */
} zs_dispatch;

typedef struct zs_ask_params {
    zs_strategy strategy;
    zs_dispatch dispatch;
    const zs_expert_set *experts;
    const zs_expert *expert;   // ZS_STRATEGY_FIXED
    const double *alpha;       // ZS_STRATEGY_MIX [zs_expert_set_count]
    const char *system;        // NULL: the template's default
    const zs_message *history; // earlier turns, oldest first
    size_t history_count;
    const zs_image *const *images; // [image_count], in the order of the conversation; each in front of the text of its turn
    size_t image_count;
    const size_t *history_images; // [history_count] how many of them each earlier turn has, whose content is then no other turn's
                                  // pointer too; the rest are the question's. NULL: all are
    const char *current;          // chat: the expert of the turn before ("" or NULL: none); kept unless the topic changed
    uint32_t max_tokens;          // 0: 512
    const char *stop;             // the answer ends before the first occurrence of this text too; NULL: none
    zs_sampling sampling;
    bool transfer; // experts may be of another model, as zs_engine_attach_expert says
    /// Receives the answer as it is made: whole UTF-8 characters, not terminated. Return false to stop.
    bool (*on_text)(void *user, const char *text, size_t length);
    void *user;
} zs_ask_params;

typedef struct zs_category {
    char name[64];      // an expert's name, or "other"
    double probability; // over the categories
} zs_category;

typedef struct zs_answer {
    char *text; // malloc'ed, UTF-8; bytes that are none, and zero bytes, became U+FFFD
    uint32_t *tokens;
    size_t token_count; // with the end token, if there was one
    size_t prompt_tokens;
    char expert[64]; // "" = base
    zs_category *categories;
    size_t category_count;
    double *alpha; // per expert of the set (mix), else NULL
    double pass1_ms, prefill_ms, decode_ms;
    double compose_ms; // of the answer's expert, in composed mode; what pass 1 needed is in pass1_ms
    uint64_t images;   // encoded for the answer: those that were not known yet; likewise
    double image_ms;
    double decode_tokens_per_s;
    bool ended; // an end token came (else: max_tokens, context or callback)
} zs_answer;

/// Answers a question in two passes. Unknown category → base weights, bit-identical to ZS_STRATEGY_NONE.
/// The answer's arrays are the caller's: zs_answer_free. Errors: ZS_ERROR_ARGUMENT (empty question, missing expert,
/// text that is no UTF-8, a model without a tokenizer), ZS_ERROR_CONTEXT, and those of zs_engine_run.
zs_status zs_ask(zs_engine *engine, const char *question, const zs_ask_params *params, zs_answer *answer, zs_error *error);
void zs_answer_free(zs_answer *answer);

/// One of many questions.
typedef struct zs_question {
    const char *text;
    const zs_message *history; // earlier turns, oldest first; may begin with a system message where params.system is NULL
    size_t history_count;
    const zs_image *const *images; // [image_count], as zs_ask_params has them
    size_t image_count;
    const size_t *history_images;
    uint64_t stream;         // which random stream its answer draws from
    const zs_expert *expert; // under ZS_STRATEGY_FIXED: instead of params.expert; NULL: that
    const uint32_t *draft;   // [draft_count] tokens that the answer may be, as zs_session_set_draft takes them
    size_t draft_count;
} zs_question;
/// An answer, as it is done; freed after the call. Return false to cancel. It must not call the engine.
typedef bool (*zs_answer_callback)(void *user, size_t index, const zs_answer *answer);

/// Answers many questions as zs_ask does each: pass 1 of all of them, then up to max_sessions answers side by side, a new one begun
/// whenever one is done. params.history, images, on_text and current are not looked at. The answers' pass1_ms is an equal share of
/// pass 1's time;
/// prefill_ms and decode_ms are 0, because steps are shared (zs_engine_get_stats tells all of them together). Errors: as of zs_ask; answers
/// that were handed over before stay good.
zs_status zs_ask_batch(zs_engine *engine, const zs_question *questions, size_t count, const zs_ask_params *params,
                       zs_answer_callback on_answer, void *user, zs_error *error);

/// A given answer.
typedef struct zs_scored_text {
    const char *text; // UTF-8
    double logprob;   // out: Σ log π over its tokens, no end token
    size_t tokens;    // out
} zs_scored_text;

/// Pass 1 as zs_ask has it, and then how likely each of texts[count] is as the answer, under the expert for the question; the question's
/// prompt is computed once. params.on_text, max_tokens, stop, sampling and current are not looked at. Of the answer the expert, the
/// categories, the weights, prompt_tokens, pass1_ms and prefill_ms are filled in; there is no text. zs_answer_free frees it. Errors: as of
/// zs_ask and zs_engine_score.
zs_status zs_ask_score(zs_engine *engine, const zs_question *question, const zs_ask_params *params, zs_scored_text *texts, size_t count,
                       zs_answer *answer, zs_error *error);

#ifdef __cplusplus
}
#endif
#endif
