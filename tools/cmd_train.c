#include "train.h"

#include <stdio.h>
#include <string.h>

uint32_t train_context(const train_options *options, const zs_model *model) {
    uint32_t context = zs_model_get_info(model)->context, asked = options->common->ctx;
    return asked && asked < context ? asked : context;
}

static bool is_one_of(const char *value, const char *a, const char *b, const char *c) {
    return !value || strcmp(value, a) == 0 || strcmp(value, b) == 0 || (c && strcmp(value, c) == 0);
}

/// What a preset says, and what is usual; options that were given stay.
static void fill_options(train_options *o) {
    bool paper = o->preset && strcmp(o->preset, "paper") == 0, authors = o->preset && strcmp(o->preset, "authors") == 0;
    if (!o->batch) o->batch = paper || authors ? 256 : 32;
    if (o->rate <= 0) o->rate = 2e-3f;
    if (o->clip < 0) o->clip = paper || authors ? 1e-3f : 1;
    if (o->kl < 0) o->kl = paper || authors ? 0.2f : 0.1f;
    if (!o->kl_direction) o->kl_direction = authors ? "base-policy" : "policy-base";
    if (paper || authors) o->greedy = true;
    if (authors && !o->init) {
        o->constant_rate = true;
        if (!o->form) o->form = "sigmoid";
        if (!o->matrices) o->matrices = "mlp";
    }
    if (!o->rollouts) o->rollouts = 4;
    if (o->scored && !o->max_tokens) o->max_tokens = o->scored->max_tokens;
}

/// Options that only reinforcement has.
static bool is_rewarded(const train_options *o) {
    return o->reward_command || o->greedy || o->unsafe_code || o->rollouts || o->max_tokens || o->timeout_s || o->kl >= 0 ||
           o->kl_direction || o->preset;
}

/// What is wrong with the options together; NULL: nothing.
static const char *find_problem(const train_options *o) {
    const cli_common *common = o->common;
    if (!o->model) return "which model? give -m FILE";
    if (!o->task) return "--task is sft (the answers as they are), classify, or a task whose answers can be scored (--help lists them)";
    if (strcmp(o->task, "sft") != 0 && !o->classify && !o->scored)
        return "--task is sft (the answers as they are), classify, or a task whose answers can be scored (--help lists them)";
    if (!o->scored && is_rewarded(o)) return "answers are not made or scored under --task sft and classify";
    if (!o->classify != !o->experts) return "--task classify and --experts DIR, whose experts' names are the categories, belong together";
    if ((o->scored || o->classify) && o->gradient) return "--dump-gradient belongs to --task sft";
    if (!is_one_of(o->preset, "paper", "authors", NULL)) return "--preset is paper or authors";
    if (!is_one_of(o->kl_direction, "policy-base", "base-policy", NULL)) return "--kl-direction is policy-base or base-policy";
    if (!o->data) return "which data? give --data FILE";
    if (!o->gradient == !o->output) return "where to? give either -o FILE, for an expert, or --dump-gradient FILE";
    if (o->gradient && (o->valid || o->init || o->log || o->plot)) return "--dump-gradient trains nothing: it takes --data and --expert";
    if (o->gradient && (o->images || o->annotations)) return "--dump-gradient takes lines of text";
    if (o->output && o->expert) return "--expert belongs to --dump-gradient; give --init FILE to begin the training at an expert";
    if (o->plot && !o->log) return "--plot draws what --log FILE holds";
    if (!is_one_of(o->form, "scale", "sigmoid", NULL)) return "--form is scale or sigmoid";
    uint32_t matrices;
    if (!cli_read_matrices(o->matrices, &matrices)) return "--matrices is a list of mlp, attention, tower, projector; or all";
    if (o->init && (o->form || o->matrices || o->max_mult > 0))
        return "--init says what is trained: without --form, --max-mult and --matrices";
    if (o->max_mult > 0 && (!o->form || strcmp(o->form, "sigmoid") != 0)) return "--max-mult belongs to --form sigmoid";
    if (!o->scored && common->kv && strcmp(common->kv, "f32") != 0) return "gradients are taken with keys and values as f32";
    if (!o->scored && o->deterministic && common->precision && strcmp(common->precision, "exact") != 0)
        return "--deterministic gradients are taken in precision exact";
    return NULL;
}

/// What --task takes.
static void list_tasks(char *text, size_t size) {
    int length = snprintf(text, size, "sft: the answers as they are; classify: pass 1; or, to learn from scores:");
    const task *t;
    for (size_t i = 0; (t = task_get(i)) && length < (int)size; i++) {
        length += snprintf(text + length, size - (size_t)length, " %s", t->name);
    }
}

int cmd_train(int argc, char **argv) {
    cli_common common = {0};
    train_options o = {.common = &common, .clip = -1, .seed = 1, .kl = -1, .wrong = 1, .temperature = 1, .sessions = 32};
    char tasks[512];
    list_tasks(tasks, sizeof tasks);
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &o.model, "FILE", "factored model, GGUF"},
        {"output", 'o', CLI_STRING, &o.output, "FILE", "the expert, safetensors; FILE.checkpoint is kept until it is done"},
        {"task", 0, CLI_STRING, &o.task, "TASK", tasks},
        {"data", 0, CLI_STRING, &o.data, "FILE", "JSON Lines: {\"prompt\" or \"messages\", \"answer\", \"image\"?}"},
        {"valid", 0, CLI_STRING, &o.valid, "FILE", "other such lines (under the same --annotations), by which the best values are kept"},
        {"annotations", 0, CLI_STRING, &o.annotations, "FILE", "okvqa, vqav2: the file of answers"},
        {"images", 0, CLI_STRING, &o.images, "DIR", "folder of the images that lines name; default: beside the data"},
        CLI_MMPROJ(&common),
        {"experts", 0, CLI_STRING, &o.experts, "DIR", "classify: the answers are its experts' names, or other"},
        {"init", 0, CLI_STRING, &o.init, "FILE", "begin at this expert; default: the base model"},
        {"transfer", 0, CLI_FLAG, &o.transfer.wanted, NULL, "accept an expert made for another model, and tell how much of it is applied"},
        {"name", 0, CLI_STRING, &o.name, "NAME", "of the expert; default: the file's"},
        {"description", 0, CLI_STRING, &o.description, "TEXT", "what it is for, in a few words that pass 1 is shown"},
        {"form", 0, CLI_STRING, &o.form, "FORM", "scale (z itself, the default) or sigmoid (the authors', the trace kept)"},
        {"max-mult", 0, CLI_FLOAT, &o.max_mult, "X", "largest multiplier of the sigmoid; default: 1"},
        {"matrices", 0, CLI_STRING, &o.matrices, "LIST",
         "of mlp, attention, all (both), tower, projector; default: all, and with images the others too"},
        {"batch", 0, CLI_COUNT, &o.batch, "N", "lines of a step; default: 32"},
        {"steps", 0, CLI_COUNT, &o.steps, "N", "default: three times through the data"},
        {"rate", 0, CLI_FLOAT, &o.rate, "X", "learning rate; default: 0.002"},
        {"constant-rate", 0, CLI_FLAG, &o.constant_rate, NULL, "keep it; else it falls to 0 along a cosine"},
        {"clip", 0, CLI_FLOAT, &o.clip, "X", "largest norm of a step's gradient; default: 1; 0: any"},
        {"weight-decay", 0, CLI_FLOAT, &o.weight_decay, "X", "pull of z towards 1; default: 0"},
        {"valid-every", 0, CLI_COUNT, &o.valid_every, "N", "steps between evaluations; default: a tenth of all"},
        {"patience", 0, CLI_COUNT, &o.patience, "N", "end after so many evaluations without a better one; default: never"},
        {"seed", 0, CLI_UINT, &o.seed, "N", "of the order of lines and of first values; default: 1"},
        {"log", 0, CLI_STRING, &o.log, "FILE", "write every step's figures there, JSON Lines"},
        {"plot", 0, CLI_STRING, &o.plot, "FILE", "and draw them there, SVG"},
        {"checkpoint-every", 0, CLI_COUNT, &o.checkpoint_every, "N", "steps between checkpoints; default: 10"},
        {"deterministic", 0, CLI_FLAG, &o.deterministic, NULL,
         "a resumed run gives the same bits, on the same device only; without images"},
        {"preset", 0, CLI_STRING, &o.preset, "NAME",
         "settings of the paper (greedy, batch 256, clip 0.001, KL 0.2) or of the authors' code"},
        {"rollouts", 0, CLI_COUNT, &o.rollouts, "N", "answers to a prompt, each held against the others; default: 4"},
        {"greedy", 0, CLI_FLAG, &o.greedy, NULL, "the likeliest answer alone, as in the paper: biased"},
        {"temp", 0, CLI_FLOAT, &o.temperature, "X", "at which answers are drawn; default: 1"},
        {"max-tokens", 'n', CLI_COUNT, &o.max_tokens, "N", "of an answer; default: the task's"},
        {"kl", 0, CLI_FLOAT, &o.kl, "X", "weight of the divergence from the base model; default: 0.1"},
        {"kl-direction", 0, CLI_STRING, &o.kl_direction, "WAY", "policy-base (the paper's, the default) or base-policy (its code's)"},
        {"wrong", 0, CLI_FLOAT, &o.wrong, "X", "a wrong answer's reward is -X, a right one's 1; default: 1"},
        {"sessions", 0, CLI_COUNT, &o.sessions, "N", "answers made at a time; default: 32"},
        {"reward-command", 0, CLI_STRING, &o.reward_command, "CMD", "scores instead: {\"answer\", \"item\"} on stdin, 0 to 1 on stdout"},
        {"timeout", 0, CLI_COUNT, &o.timeout_s, "S", "seconds for that command or for generated code; default: 10"},
        {"unsafe-code", 0, CLI_FLAG, &o.unsafe_code, NULL, "run generated code without bubblewrap where that is missing"},
        {"dump-gradient", 0, CLI_STRING, &o.gradient, "FILE", "train nothing: write d Σ log π(answer | prompt) / dz there"},
        {"expert", 0, CLI_STRING, &o.expert, "FILE", "take that gradient at this expert; default: the base model"},
        {0},
    };
    const cli_command command = {"train",
                                 "-m MODEL --task TASK --data FILE [--valid FILE] -o EXPERT.safetensors | --dump-gradient OUT.safetensors",
                                 "makes an expert, from answers or from scores of the model's own",
                                 "zsigma train -m smollm2.gguf --task sft --data train.jsonl --valid valid.jsonl -o math.safetensors",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "the data is given by --data");
    o.classify = o.task && strcmp(o.task, "classify") == 0;
    o.scored = o.task ? task_find(o.task) : NULL;
    const char *problem = find_problem(&o);
    if (problem) return cli_usage(&command, "%s", problem);
    fill_options(&o);
    zs_error error;
    zs_status status = o.gradient ? train_dump_gradient(&o, &error) : train_expert(&o, &error);
    return status ? cli_fail(&error) : CLI_DONE;
}
