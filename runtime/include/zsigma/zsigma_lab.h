/// zsigma_lab: making models and experts. Link with zsigma_factor for zs_factor_file, zs_merge_file and zs_project_file (the part that
/// needs LAPACK).
#ifndef ZSIGMA_LAB_H
#define ZSIGMA_LAB_H

#include "zsigma/zsigma.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- factoring -----------------------------------------------------------------------------------------------------

typedef enum zs_factor_type { ZS_FACTOR_F16 = 0, ZS_FACTOR_F32, ZS_FACTOR_Q8_0 } zs_factor_type;

/// The last two are of models that see images.
enum { ZS_MATRICES_MLP = 1, ZS_MATRICES_ATTENTION = 2, ZS_MATRICES_ALL = 3, ZS_MATRICES_TOWER = 4, ZS_MATRICES_PROJECTOR = 8 };

/// Relative error ‖W − U diag(σ) Vᵀ‖ / ‖W‖ with the factors as stored, over the matrices of one kind ("ffn_gate", …).
typedef struct zs_factor_error {
    char kind[32];
    uint32_t matrices;
    double mean, max;
} zs_factor_error;

typedef struct zs_factor_params {
    zs_factor_type type;
    uint32_t matrices;    // ZS_MATRICES_* bits; 0: all
    const char *mmproj;   // a GGUF file with the image tower, which goes into the output too; NULL: what the input has
    uint32_t threads;     // 0: one per processor
    uint64_t memory;      // bytes that the matrices at work may take together; 0: half of the system's, 8 GB at most. A matrix that
                          // takes more by itself is worked on alone
    bool force;           // replace an existing output
    zs_progress progress; // done and total in the SVD's floating-point operations; false cancels, the work can be resumed
    zs_log log;
} zs_factor_params;

typedef struct zs_factor_report {
    zs_factor_error kinds[24];
    uint32_t kind_count;
    uint32_t resumed; // matrices taken from an interrupted run
    double seconds;
    uint64_t bytes;        // size of the output
    uint64_t memory;       // the bound that held
    uint64_t memory_used;  // the most that matrices at work took together, as planned
    uint32_t side_by_side; // the most matrices that were at work together
} zs_factor_report;

/// Factors every adapted matrix of a dense model (GGUF file or Hugging Face folder) by SVD in double precision and writes a factored GGUF
/// file (DESIGN.md §4). Interrupted work leaves OUT.partial, from which the same call goes on: with the matrices whose weights
/// are still the same, the others are done again. Memory stays within params.memory: the input is mapped and let go matrix by matrix, the
/// output written tensor by tensor. Errors:
/// ZS_ERROR_NUMERIC (NaN in a weight, named), ZS_ERROR_EXISTS (OUT, or an OUT.partial that is another program's or that
/// another run works on), ZS_ERROR_IO (full disk), …
zs_status zs_factor_file(const char *input, const char *output, const zs_factor_params *params, zs_factor_report *report, zs_error *error);

// ---- merging -------------------------------------------------------------------------------------------------------

typedef enum zs_merge_type { ZS_MERGE_F16 = 0, ZS_MERGE_F32, ZS_MERGE_Q8_0, ZS_MERGE_Q4_0 } zs_merge_type;

typedef struct zs_merge_params {
    zs_merge_type type;   // of the recomposed matrices; F16 where blocks do not divide their rows
    bool force;           // replace an existing output
    bool transfer;        // accept an expert of another base model
    zs_progress progress; // done and total in floating-point operations; false cancels
    zs_log log;           // told when the expert or the model has no sketches, so that the base cannot be checked
} zs_merge_params;

/// Writes W' = U diag(σ ⊙ z) Vᵀ of every factored matrix, with everything else of the model, as a dense GGUF file that llama.cpp and
/// others read, the language model alone: vectors in F32, the rows of q and k in that file's order. expert: a file, or NULL for the base.
/// matrices, if not NULL, receives how many were recomposed. Errors: ZS_ERROR_ARGUMENT (a dense model), ZS_ERROR_MISMATCH (an expert of
/// other shapes or, without transfer, of another base), ZS_ERROR_NUMERIC (a product overflows, named), ZS_ERROR_EXISTS, ZS_ERROR_IO, …
zs_status zs_merge_file(const char *model, const char *expert, const char *output, const zs_merge_params *params, uint32_t *matrices,
                        zs_error *error);

// ---- experts from fine-tunes -----------------------------------------------------------------------------------------

/// How much of what a fine-tune changed in one matrix an expert can say.
typedef struct zs_projected_matrix {
    const char *name; // canonical, valid during the call
    double change;    // ‖ΔW‖ / ‖W‖
    double share;     // ‖diag(Uᵀ ΔW V)‖² / ‖ΔW‖², between 0 and 1; 0 where nothing changed
    uint32_t small;   // singular values that are too small to divide by
} zs_projected_matrix;

typedef struct zs_project_params {
    const char *name, *description; // NULL: ""
    bool force;                     // replace an existing output
    void (*on_matrix)(void *user, const zs_projected_matrix *matrix);
    void *user;
    zs_progress progress; // "project": done and total in floating-point operations; false cancels
    zs_log log;           // told when the base cannot be checked
} zs_project_params;

typedef struct zs_project_report {
    uint32_t matrices, small; // in the expert; singular values of them that are too small
    double change, share;     // of all matrices together
    bool has_cosine;          // the base was checked
    double cosine;            // between the sketches of base and fine-tune
    bool lora;
} zs_project_report;

/// Writes the expert that comes nearest to a fine-tune of the factored model: z_i = 1 + u_iᵀ ΔW v_i / σ_i, which is u_iᵀ W_ft v_i / σ_i
/// (the least-squares z of every matrix; u_i and v_i are divided by their lengths, which rounding leaves a little off 1). Where
/// σ_i ≤ max(out, in) · 2⁻²³ · σ_0, z_i is 1. tuned: a GGUF file or a Hugging Face folder, dense, of the same shapes, whose
/// ΔW = W_ft − U diag(σ) Vᵀ; or a folder with a LoRA in PEFT's form, whose matrices alone the expert then has. Matrix by matrix: memory is
/// that of one. Errors: ZS_ERROR_MISMATCH (other shapes, matrices that the model does not have as factors, another base by its sketches; a
/// LoRA does not hold its base, which cannot be checked), ZS_ERROR_UNSUPPORTED (other adapters, named), ZS_ERROR_NUMERIC, ZS_ERROR_EXISTS,
/// …
zs_status zs_project_file(const char *model, const char *tuned, const char *output, const zs_project_params *params,
                          zs_project_report *report, zs_error *error);

// ---- the authors' files ----------------------------------------------------------------------------------------------

/// What their files do not hold: names for people, and the sketches of the base model, which come from a model's file (its shapes are
/// held against the expert's) or from another expert of the same base. Neither: the base cannot be checked later.
typedef struct zs_import_params {
    const char *name, *description; // NULL: ""
    const char *model;              // a factored model's file, or NULL
    const zs_expert *like;          // or NULL
} zs_import_params;

/// Reads an expert that the paper's authors' code wrote: policy_params.pt, learnable_params.pt, or a mix. Parameterisation sigmoid and
/// normalise trace; a mix is summed and stored as z. Errors: ZS_ERROR_FORMAT, ZS_ERROR_UNSUPPORTED (a pickle of anything but tensors,
/// named), ZS_ERROR_MISMATCH (not the model's matrices or ranks), …
zs_status zs_expert_import(const char *path, const zs_import_params *params, zs_expert **expert, zs_error *error);

typedef enum zs_export_keys {
    ZS_KEYS_AUTO = 0, // policy where the matrices are just gate, up and down of every layer
    ZS_KEYS_POLICY,   // learnable_params_module_list.{i}, bf16, as policy_params.pt
    ZS_KEYS_NAMES,    // parameter names, f32, as learnable_params.pt
} zs_export_keys;

typedef struct zs_export_params {
    zs_export_keys keys;
    bool rescale; // accept that an expert of normalise none is rescaled there
    bool force;   // replace an existing file
} zs_export_params;

/// Writes p = logit(c · m) of the multipliers m, by which the authors' code gives the same weights for any c > 0, since it divides c out;
/// here c is 0.5 / max m, but values that were read as such p are kept. Errors: ZS_ERROR_ARGUMENT (normalise none without rescale; matrices
/// that a policy does not hold), ZS_ERROR_UNSUPPORTED (multipliers that are not above 0), ZS_ERROR_EXISTS.
zs_status zs_expert_export(const zs_expert *expert, const char *path, const zs_export_params *params, zs_error *error);

// ---- gradients -----------------------------------------------------------------------------------------------------

/// The gradient of answers' log-probabilities by an expert's multipliers, through the whole decoder: in f32, but for what
/// zs_gradient_params.precision allows. Of every layer the input is kept; of the last ones, as far as memory goes, all activations, which
/// are computed again for the others. Matrices that are not factored pass gradients on and have none of their own.
typedef struct zs_gradient zs_gradient;

/// Which way the divergence from the base model is taken: KL(policy ‖ base) as in the paper, or KL(base ‖ policy) as in its authors' code.
typedef enum zs_kl { ZS_KL_NONE = 0, ZS_KL_POLICY_BASE, ZS_KL_BASE_POLICY } zs_kl;

typedef struct zs_gradient_params {
    uint32_t max_rows;       // tokens of one pass, over all its sequences, and so the longest sequence; 0: chosen by device and memory
    uint32_t min_rows;       // where it is chosen: at least so many, for the longest item
    uint64_t max_kept_bytes; // of activations that are kept and not computed again; 0: a quarter of the device's memory, if that is free
    zs_kl kl;                // divergences are taken too; costs a forward pass and memory for the base model's logits
    zs_precision precision;  // of the way back; ZS_PRECISION_FAST: matrix units, where they serve, take gradients as f16, a scale to a row,
                             // and sum in f32. Log-probabilities and divergences are exact always. Default: fast on GPUs
    const zs_engine *engine; // of the same model: prompts may hold its images (zs_engine_encode_prompt), and the tower's z has a gradient
                             // too; NULL: none do
    zs_progress progress;    // "gradient", in tokens; false cancels
} zs_gradient_params;

/// Memory is sized first: what does not fit is ZS_ERROR_DEVICE_MEMORY with the numbers and what would fit. Starts at the base model
/// and a gradient of zero. The model and the engine outlive it; it belongs to one thread at a time. Errors: ZS_ERROR_ARGUMENT for a dense
/// model.
zs_status zs_gradient_create(zs_model *model, const zs_gradient_params *params, zs_gradient **gradient, zs_error *error);
void zs_gradient_destroy(zs_gradient **gradient);
/// Tokens of one pass, as chosen.
uint32_t zs_gradient_max_rows(const zs_gradient *gradient);
/// Layers whose activations are kept; the others' forward pass is made twice.
uint32_t zs_gradient_kept_layers(const zs_gradient *gradient);

/// The expert at which gradients are taken (NULL: the base model), checked as by zs_engine_attach_expert. What was added so far stays.
zs_status zs_gradient_set_expert(zs_gradient *gradient, const zs_expert *expert, bool transfer, zs_error *error);

/// One term of the sum: weight · log π(answer | prompt), and − kl_weight · Σ KL at the answer's positions, exact over the vocabulary.
typedef struct zs_gradient_item {
    const uint32_t *prompt; // ids, prompt_count ≥ 1
    size_t prompt_count;
    const uint32_t *answer; // ids, answer_count ≥ 1; an end token counts where it is given
    size_t answer_count;
    float weight;    // finite
    float *logprobs; // out [answer_count], natural logarithm; NULL: not wanted
    float kl_weight; // finite; params.kl says which divergence
    float *kl;       // out [answer_count], where params.kl says one; NULL: not wanted
    // Those of the prompt, in their order. Only needed where the engine's model has a tower or projector with a z: then they are encoded
    // anew, under the z at which the gradient is taken.
    const zs_image *const *images; // [image_count]
    size_t image_count;
} zs_gradient_item;

/// Adds d Σ (weight · log π(answer | prompt) − kl_weight · Σ KL) / dz. Items go together in passes of up to max_rows tokens, alike ones
/// next to each other: what they have in common at their beginning is computed once, and so are items that are the same altogether. Errors:
/// ZS_ERROR_CONTEXT (an item of more tokens than the model's context or max_rows), ZS_ERROR_ARGUMENT (empty, an id out of range),
/// ZS_ERROR_NUMERIC (a log-probability or a gradient that is no number), ZS_ERROR_CANCELLED; after one of the last two the gradient is that
/// of a part.
zs_status zs_gradient_add(zs_gradient *gradient, const zs_gradient_item *items, size_t count, zs_error *error);
/// Only fills the items' logprobs, by the same path forwards; the gradient stays as it is, and no divergence is taken.
zs_status zs_gradient_score(zs_gradient *gradient, const zs_gradient_item *items, size_t count, zs_error *error);
/// Back to zero.
void zs_gradient_clear(zs_gradient *gradient);

/// i-th matrix: its canonical name ("model.layers.0.mlp.gate_proj"), rank, and the gradient by its multipliers z, W' = U diag(σ ⊙ z) Vᵀ
/// (under normalise=trace: by s ⊙ m, the multipliers as they take effect). Valid until the next call; false when i is out of range.
bool zs_gradient_matrix(const zs_gradient *gradient, uint32_t i, const char **name, uint32_t *rank, const float **values);
/// Writes it as a safetensors file, whole or not at all: "model.layers.0.mlp.gate_proj.z" F32 [rank] and so on, as in expert files.
zs_status zs_gradient_save(const zs_gradient *gradient, const char *path, bool force, zs_error *error);

// ---- training ------------------------------------------------------------------------------------------------------

/// Trains an expert, supervised on questions with answers or by REINFORCE on the scores of answers that it makes itself: AdamW on the
/// values of z, or of p under the authors' sigmoid. Starts at the base model or at
/// another expert, keeps the best values by a validation set, and goes on from its checkpoint after an interruption.
typedef struct zs_trainer zs_trainer;

/// A question, as ids. Belongs to the caller and outlives the trainer.
typedef struct zs_train_item {
    const uint32_t *prompt; // prompt_count ≥ 1; with the model's image token once for each image (zs_model_encode_chat)
    size_t prompt_count;
    const uint32_t *answer; // answer_count ≥ 1, the end token with it where it is to be learnt; not looked at where there is a reward
    size_t answer_count;
    const zs_image *const *images; // [image_count]
    size_t image_count;
} zs_train_item;

/// What a dispatcher is trained on: pass 1's prompt about a question, up to where the labels begin to differ, and the rest of the right
/// one, \boxed{category}, through its closing brace, as ZS_DISPATCH_SCORE scores it. category: the name of one of the experts, or "other".
/// image_count: of images in front of the question, which are the caller's to put into the item. The item's prompt and answer are
/// malloc'ed, the caller frees them. Errors: ZS_ERROR_ARGUMENT for another category, or images where the model has no tower.
zs_status zs_dispatch_encode(const zs_model *model, const zs_expert_set *experts, const char *question, size_t image_count,
                             const char *category, zs_train_item *item, zs_error *error);

/// What became of a step, and of an evaluation where there was one.
typedef struct zs_train_figures {
    uint32_t step, steps; // steps done, of so many; 0 is the evaluation before the first
    double logprob;       // of the step's answers before it, mean per token
    double gradient_norm; // before it was clipped
    double rate;          // learning rate
    uint64_t tokens;      // of the step's prompts and answers, also where they were computed once for several
    double learn_ms;      // rollouts apart
    // Of reinforcement.
    double score, reward;          // mean over the step's answers that have a score
    double kl;                     // mean per token of the answers that were learnt from; 0 without
    uint32_t answers, cut, failed; // answers made; not ended after max_tokens; without a score
    uint64_t answer_tokens;
    double rollout_ms; // making and scoring them
    bool evaluated, best;
    double valid; // of the validation set: mean log-probability of an answer's token, or mean score of greedy answers
    double evaluate_ms;
} zs_train_figures;

typedef struct zs_trainer_params {
    const zs_train_item *items, *valid; // valid: NULL for none; then the last values are the result
    size_t item_count, valid_count;

    // What is trained. The form of init's values is kept where there is one, and its matrices.
    const zs_expert *init;
    bool transfer;
    bool sigmoid, trace; // z = s · sigmoid(p) · max_mult, and s = Σσ / Σ(σm) under trace; else z itself
    double max_mult;     // 0: 1
    uint32_t matrices;   // ZS_MATRICES_* bits; 0: all factors of the decoder and, where items have images, of tower and projector
    const char *name, *description;
    bool dispatcher; // role of the expert

    // How.
    uint32_t batch;       // items of a step; 0: 32
    uint32_t steps;       // 0: three times through the items
    double learning_rate; // 0: 2e-3
    bool constant_rate;   // else it falls to 0 along a cosine
    double clip;          // largest norm of a step's gradient; 0: any
    double weight_decay;  // towards z = 1
    uint32_t valid_every; // steps between evaluations; 0: a tenth of all
    uint32_t patience;    // evaluations without a better one that end the training; 0: none do
    uint64_t seed;        // of the items' order and of first values

    zs_precision precision; // of gradients, as zs_gradient_params has it; exact where deterministic is wanted

    // Reinforcement, where there is a reward. It scores an answer to items[item], or valid[item], from 0 to 1; an answer whose score is an
    // error or no such number is left out, with a warning; ZS_ERROR_CANCELLED ends the call.
    zs_status (*reward)(void *user, bool valid, size_t item, const char *answer, double *score, zs_error *error);
    void *reward_user;
    zs_engine *engine;   // makes the answers, in as many sessions as it has, which must be idle; of the same model. Where items have
                         // images it is needed without a reward too, and its kv_tokens hold those of a step
    double right, wrong; // rewards of scores 1 and 0; both 0: 1 and −1
    uint32_t rollouts;   // answers to a prompt; 0: 4
    bool greedy;         // the likeliest answer alone: one to a prompt, its reward without a baseline
    float temperature;   // 0: 1
    uint32_t max_tokens; // of an answer; 0: 256
    zs_kl kl;            // which divergence is held down
    double kl_weight;    // λ

    // Survival.
    const char *checkpoint;    // a file that is written on the way and taken up when it is there; NULL: none
    uint32_t checkpoint_every; // steps; 0: 10. Also when the training is cancelled
    bool deterministic;        // a resumed training must give the bits of one that was not interrupted: only on the device that began
                               // it, and ZS_ERROR_UNSUPPORTED with images

    /// Told of every step; false ends the call with ZS_ERROR_CANCELLED, after a checkpoint.
    bool (*on_step)(void *user, const zs_train_figures *figures);
    void *user;
    zs_progress progress; // within a step; false cancels
} zs_trainer_params;

/// Params are copied, what they point to is not. A checkpoint of other settings is ZS_ERROR_MISMATCH and names the difference, a damaged
/// one ZS_ERROR_FORMAT. Errors besides: those of zs_gradient_create and of zs_engine_attach_expert for init.
zs_status zs_trainer_create(zs_model *model, const zs_trainer_params *params, zs_trainer **trainer, zs_error *error);
void zs_trainer_destroy(zs_trainer **trainer);

typedef struct zs_trainer_info {
    uint32_t step, steps; // done, of so many
    bool resumed;         // from the checkpoint
    bool stopped;         // early, by patience
    bool has_best;        // there was an evaluation
    uint32_t best_step;
    double first_valid, best_valid; // at the first evaluation and at the best
    uint32_t matrices;
    uint64_t values;
} zs_trainer_info;
zs_trainer_info zs_trainer_get_info(const zs_trainer *trainer);

/// Trains to the end. ZS_ERROR_NUMERIC: it diverged (a z, a log-probability or a gradient is no number); the values before that step, or
/// the best, are still there. ZS_ERROR_CANCELLED: a callback said so. ZS_ERROR_IO: the checkpoint could not be written; the last one
/// stands.
zs_status zs_trainer_run(zs_trainer *trainer, zs_error *error);
/// The best values by the validation set, else the last, as an expert with the model's sketches and the training's figures.
zs_status zs_trainer_get_expert(const zs_trainer *trainer, zs_expert **expert, zs_error *error);

// ---- few-shot search -----------------------------------------------------------------------------------------------

/// The cross-entropy method over the weights α of a mix (paper, section 3.2, few-shot adaptation): each iteration draws a population from
/// normal distributions, clamped to [0, 1], and moves these to the best of it. Pure arithmetic; what an α is worth is the caller's to say.
typedef struct zs_search zs_search;

/// How good a member is: by accuracy, and where that is equal by logprob (mean log-likelihood of the right answers).
typedef struct zs_search_score {
    double accuracy, logprob;
} zs_search_score;

typedef struct zs_search_params {
    uint32_t experts, columns; // α is [experts, columns]: columns 1 for one α per expert, or one per matrix; columns 0: 1
    uint32_t population;       // 0: 32; at least 3
    uint64_t seed;             // the same seed, the same draws
    bool held_out;             // there is a held-out set, which chooses among the samples that were the best in turn

    /// Scores members [member_count] of alpha [member_count, experts, columns] together, on the examples, or on the held-out ones.
    zs_status (*evaluate)(void *user, const double *alpha, uint32_t member_count, bool held_out, zs_search_score *scores, zs_error *error);
    void *user;
} zs_search_params;

zs_status zs_search_create(const zs_search_params *params, zs_search **search, zs_error *error);
void zs_search_destroy(zs_search **search);
/// One iteration: draw, evaluate, move. Member 0 is the best sample so far (at first: the mean, 1 / experts everywhere); in the first
/// iteration the experts by themselves follow, in up to half of the population (where the paper has draws). The int(0.2 · population)
/// best, at least 2, give the next mean and (unbiased) deviation, at first 0.5. A column of α that is all zero is drawn again. Errors:
/// those of evaluate, after which the same call does the iteration again; ZS_ERROR_NUMERIC (a score that is no number).
zs_status zs_search_step(zs_search *search, zs_error *error);
uint32_t zs_search_iterations(const zs_search *search);
/// Whether another iteration would draw what the last ones drew: no α has a deviation above 1e-6 left. The result stays what it is.
bool zs_search_has_converged(const zs_search *search);
/// α of the result so far [experts, columns]: the best sample, or the one that was best on the held-out set. *score: on the examples;
/// *held: on the held-out set. Either may be NULL. NULL before the first iteration.
const double *zs_search_best(const zs_search *search, zs_search_score *score, zs_search_score *held);
/// Of all that a step depends on, as numbers, so that a search can be interrupted: zs_search_state_size of them.
size_t zs_search_state_size(const zs_search *search);
void zs_search_get_state(const zs_search *search, double *state);
/// ZS_ERROR_FORMAT when the numbers are no state of such a search.
zs_status zs_search_set_state(zs_search *search, const double *state, zs_error *error);

// ---- measuring -----------------------------------------------------------------------------------------------------
// Whole steps are measured from outside, through sessions; what needs to look inside is here.

/// What a device can do at most, by small kernels that do nothing else; the best of several runs. On CPU drivers it is what their
/// compilers make of these kernels, which others may surpass.
typedef struct zs_device_peaks {
    double read_gb_per_s;      // reading memory, 1e9 bytes a second
    double fma_gflop_per_s;    // f32 multiply-adds; an addition and a multiplication are two
    double matrix_gflop_per_s; // f16 products summed in f32 by matrix units; 0 without the matrix tier
    double stage_us;           // an empty dispatch that waits for the one before it
} zs_device_peaks;

/// Takes about a second. Errors: ZS_ERROR_UNSUPPORTED where the device has no timestamps, ZS_ERROR_DEVICE_MEMORY, …
zs_status zs_bench_device(zs_device *device, zs_device_peaks *peaks, zs_error *error);

/// What zs_tune found for one kind of matrix product on one row.
typedef struct zs_tuned {
    const char *type;                 // of the weights; static
    const char *kind;                 // few_rows, many_rows or pair (gate and up together); static
    uint32_t rows, depth, subgroups;  // how the kernel is made: see shaders/matvec.comp
    bool integers;                    // by products of integers, which serve in precision fast
    double gb_per_s, gb_per_s_before; // weights read, 1e9 bytes a second
} zs_tuned;

/// Finds the fastest kernels of decode steps for the types of a model's weights, and keeps them in the device's cache folder; the model
/// and those loaded later use them, in engines created after this. Takes some seconds a type. tuned[*count] is malloc'ed. Errors:
/// ZS_ERROR_UNSUPPORTED where there is nothing to choose from (CPU drivers).
zs_status zs_tune(zs_model *model, zs_tuned **tuned, size_t *count, zs_error *error);

typedef enum zs_step_kind {
    ZS_STEP_PREFILL, // of `rows` tokens of one session
    ZS_STEP_DECODE,  // of `rows` sessions
    ZS_STEP_COMPOSE, // composed weights made for an expert
} zs_step_kind;

typedef struct zs_kernel_params {
    zs_step_kind kind;
    uint32_t rows;  // ≤ the engine's max_rows, or max_sessions when decoding
    uint32_t depth; // decode: tokens each session holds before; 0: 16
    uint32_t runs;  // steps that are averaged, after one that warms up; 0: 1
} zs_kernel_params;

/// The dispatches of a step with one label and kernel, taken together.
typedef struct zs_kernel_time {
    const char *label, *kernel; // static
    uint32_t calls;             // dispatches per step
    double ms;                  // of all calls together, by the device's timestamps
    double bytes, flops;        // of all calls together, as the operations estimate them
} zs_kernel_time;

/// Times every dispatch of a step by itself; the barriers between them make the step a little slower than it is. *times
/// is malloc'ed, in the order of first use. Sessions of the engine must be idle. Errors: ZS_ERROR_UNSUPPORTED where the
/// device has no timestamps, ZS_ERROR_ARGUMENT (of ZS_STEP_COMPOSE, where the engine's mode is another), and those of zs_engine_run.
zs_status zs_bench_kernels(zs_engine *engine, const zs_kernel_params *params, zs_kernel_time **times, size_t *count, zs_error *error);

typedef struct zs_random_model_params {
    const char *arch; // "smollm2-135m", "llama3-8b", … (zs_random_model_arch)
    const char *type; // "f32", "f16", "bf16", "q8_0", "q4_0" or "q4_1"; NULL: "f16"
    uint32_t layers;  // 0: as many as the model has
    bool factored;    // factors of full rank, in the type, instead of dense matrices
    zs_progress progress;
} zs_random_model_params;

/// A model of a known shape with random weights, made on the device tensor by tensor without a file: for measurements. It has
/// no tokenizer (zs_model_get_tokenizer gives NULL), so zs_ask refuses it. Errors: ZS_ERROR_ARGUMENT (unknown arch or type), and
/// those of zs_model_load.
zs_status zs_model_create_random(zs_device *device, const zs_random_model_params *params, zs_model **model, zs_error *error);
/// Plans as zs_plan_file does for a model that would be made so; with factored false and no mode asked for, for a dense one.
zs_status zs_plan_random(zs_device *device, const zs_random_model_params *random, const zs_plan_params *params, zs_plan *plan,
                         zs_error *error);
/// i-th known arch; NULL when i is out of range.
const char *zs_random_model_arch(uint32_t i);

/// An expert for every factored matrix of the model with multipliers spread evenly over 0.9 … 1.1; other seeds, other
/// numbers. Its name is "random". Errors: ZS_ERROR_ARGUMENT when the model is dense.
zs_status zs_expert_create_random(const zs_model *model, uint64_t seed, zs_expert **expert, zs_error *error);

#ifdef __cplusplus
}
#endif
#endif
