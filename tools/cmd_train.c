#include "train.h"

#include <string.h>

uint32_t train_context(const train_options *options, const zs_model *model) {
    uint32_t context = zs_model_get_info(model)->context, asked = options->common->ctx;
    return asked && asked < context ? asked : context;
}

static bool is_one_of(const char *value, const char *a, const char *b, const char *c) {
    return !value || strcmp(value, a) == 0 || strcmp(value, b) == 0 || (c && strcmp(value, c) == 0);
}

/// What is wrong with the options together; NULL: nothing.
static const char *find_problem(const train_options *o) {
    const cli_common *common = o->common;
    if (!o->model) return "which model? give -m FILE";
    if (!o->task || strcmp(o->task, "sft") != 0) return "--task is sft (the answers as they are); there is no other yet";
    if (!o->data) return "which data? give --data FILE";
    if (!o->gradient == !o->output) return "where to? give either -o FILE, for an expert, or --dump-gradient FILE";
    if (o->gradient && (o->valid || o->init || o->log || o->plot)) return "--dump-gradient trains nothing: it takes --data and --expert";
    if (o->output && o->expert) return "--expert belongs to --dump-gradient; give --init FILE to begin the training at an expert";
    if (o->plot && !o->log) return "--plot draws what --log FILE holds";
    if (!is_one_of(o->form, "scale", "sigmoid", NULL)) return "--form is scale or sigmoid";
    if (!is_one_of(o->matrices, "mlp", "attention", "all")) return "--matrices is mlp, attention or all";
    if (o->init && (o->form || o->matrices || o->max_mult > 0))
        return "--init says what is trained: without --form, --max-mult and --matrices";
    if (o->max_mult > 0 && (!o->form || strcmp(o->form, "sigmoid") != 0)) return "--max-mult belongs to --form sigmoid";
    if ((common->precision && strcmp(common->precision, "exact") != 0) || (common->kv && strcmp(common->kv, "f32") != 0))
        return "gradients are taken in precision exact, with keys and values as f32";
    return NULL;
}

int cmd_train(int argc, char **argv) {
    cli_common common = {0};
    train_options o = {.common = &common, .batch = 32, .rate = 2e-3f, .clip = 1, .seed = 1};
    const cli_option options[] = {
        {"model", 'm', CLI_STRING, &o.model, "FILE", "factored model, GGUF"},
        {"output", 'o', CLI_STRING, &o.output, "FILE", "the expert, safetensors; FILE.checkpoint is kept until it is done"},
        {"task", 0, CLI_STRING, &o.task, "TASK", "sft: the answers as they are"},
        {"data", 0, CLI_STRING, &o.data, "FILE", "JSON Lines: {\"prompt\" or \"messages\", \"answer\"}"},
        {"valid", 0, CLI_STRING, &o.valid, "FILE", "other such lines, by which the best values are kept"},
        {"init", 0, CLI_STRING, &o.init, "FILE", "begin at this expert; default: the base model"},
        {"transfer", 0, CLI_FLAG, &o.transfer, NULL, "accept an expert made for another model"},
        {"name", 0, CLI_STRING, &o.name, "NAME", "of the expert; default: the file's"},
        {"description", 0, CLI_STRING, &o.description, "TEXT", "what it is for, in a few words that pass 1 is shown"},
        {"form", 0, CLI_STRING, &o.form, "FORM", "scale (z itself, the default) or sigmoid (the authors', the trace kept)"},
        {"max-mult", 0, CLI_FLOAT, &o.max_mult, "X", "largest multiplier of the sigmoid; default: 1"},
        {"matrices", 0, CLI_STRING, &o.matrices, "LIST", "mlp, attention or all (default)"},
        {"batch", 0, CLI_UINT, &o.batch, "N", "lines of a step; default: 32"},
        {"steps", 0, CLI_UINT, &o.steps, "N", "default: three times through the data"},
        {"rate", 0, CLI_FLOAT, &o.rate, "X", "learning rate; default: 0.002"},
        {"constant-rate", 0, CLI_FLAG, &o.constant_rate, NULL, "keep it; else it falls to 0 along a cosine"},
        {"clip", 0, CLI_FLOAT, &o.clip, "X", "largest norm of a step's gradient; default: 1; 0: any"},
        {"weight-decay", 0, CLI_FLOAT, &o.weight_decay, "X", "pull of z towards 1; default: 0"},
        {"valid-every", 0, CLI_UINT, &o.valid_every, "N", "steps between evaluations; default: a tenth of all"},
        {"patience", 0, CLI_UINT, &o.patience, "N", "end after so many evaluations without a better one; default: never"},
        {"seed", 0, CLI_UINT, &o.seed, "N", "of the order of lines and of first values; default: 1"},
        {"log", 0, CLI_STRING, &o.log, "FILE", "write every step's figures there, JSON Lines"},
        {"plot", 0, CLI_STRING, &o.plot, "FILE", "and draw them there, SVG"},
        {"checkpoint-every", 0, CLI_UINT, &o.checkpoint_every, "N", "steps between checkpoints; default: 10"},
        {"deterministic", 0, CLI_FLAG, &o.deterministic, NULL, "a resumed run gives the same bits, on the same device only"},
        {"dump-gradient", 0, CLI_STRING, &o.gradient, "FILE", "train nothing: write d Σ log π(answer | prompt) / dz there"},
        {"expert", 0, CLI_STRING, &o.expert, "FILE", "take that gradient at this expert; default: the base model"},
        {0},
    };
    const cli_command command = {"train",
                                 "-m MODEL --task sft --data FILE [--valid FILE] -o EXPERT.safetensors | --dump-gradient OUT.safetensors",
                                 "makes an expert from questions with answers",
                                 "zsigma train -m smollm2.gguf --task sft --data train.jsonl --valid valid.jsonl -o math.safetensors",
                                 options,
                                 &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "the data is given by --data");
    const char *problem = find_problem(&o);
    if (problem) return cli_usage(&command, problem);
    zs_error error;
    zs_status status = o.gradient ? train_dump_gradient(&o, &error) : train_expert(&o, &error);
    return status ? cli_fail(&error) : CLI_DONE;
}
