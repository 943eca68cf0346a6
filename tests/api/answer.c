// Asks a model one question: answer MODEL.gguf "question" [EXPERTS-FOLDER]. With experts, the answer takes two passes.
#include <zsigma/zsigma.h>

#include <stdio.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    zs_device *device = NULL;
    zs_model *model = NULL;
    zs_engine *engine = NULL;
    zs_expert_set *experts = NULL;
    zs_answer answer = {0};
    zs_error error;

    zs_status status = zs_device_create(NULL, &device, &error);
    if (!status) status = zs_model_load(device, argv[1], NULL, &model, &error);
    if (!status) status = zs_engine_create(model, NULL, &engine, &error);
    if (!status && argc > 3) status = zs_expert_set_load(argv[3], &experts, &error);
    zs_ask_params params = {.experts = experts, .strategy = experts ? ZS_STRATEGY_PROMPT : ZS_STRATEGY_NONE};
    if (!status) status = zs_ask(engine, argv[2], &params, &answer, &error);
    if (!status)
        printf("%s\n", answer.text);
    else
        fprintf(stderr, "%s\n", error.message);

    zs_answer_free(&answer);
    zs_expert_set_destroy(&experts);
    zs_engine_destroy(&engine);
    zs_model_destroy(&model);
    zs_device_destroy(&device);
    return status ? 1 : 0;
}
