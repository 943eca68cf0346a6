// What preprocessors are told: older and newer layouts, defaults, and what is refused.
#include "loader/image_config.h"

#include "support/tiny_folder.h"
#include "support/tiny_runtime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char folder[] = TEST_OUTPUT "/image_config";

/// Single quotes stand for double ones; NULL: no such file.
static void put(const char *name, const char *text) {
    char path[512], quoted[2048];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)unlink(path);
    if (!text) return;
    size_t size = strlen(text);
    assert_true(size < sizeof quoted);
    for (size_t i = 0; i < size; i++) quoted[i] = text[i];
    for (size_t i = 0; i < size; i++)
        if (quoted[i] == '\'') quoted[i] = '"';
    tiny_folder_put(folder, name, quoted, size);
}

static zs_status read_config(const char *config, const char *preprocessor, const char *processor, image_config *read, zs_error *error) {
    (void)mkdir(folder, 0777);
    put("config.json", config);
    put("preprocessor_config.json", preprocessor);
    put("processor_config.json", processor);
    return image_config_read_folder(folder, read, error);
}

#define TOWER "'vision_config': {'image_size': 336, 'patch_size': 14}"
#define LLAVA "{'model_type': 'llava', " TOWER "}"
#define NEXT "{'model_type': 'llava_next', " TOWER ", 'image_grid_pinpoints': [[336, 672], [672, 672]]}"
#define SMOLVLM "{'model_type': 'smolvlm', 'scale_factor': 4, 'vision_config': {'image_size': 512, 'patch_size': 16}}"

static void expect(const char *what, bool good) {
    if (!good) fail_msg("%s", what);
}

static void test_layouts(void **state) {
    (void)state;
    image_config c;
    zs_error error = {0};
    // As the published checkpoints have them.
    tiny_need(
        read_config(LLAVA,
                    "{'crop_size': {'height': 336, 'width': 336}, 'do_center_crop': true, 'do_convert_rgb': true, 'do_normalize': true,"
                    " 'do_rescale': true, 'do_resize': true, 'image_mean': [0.48145466, 0.4578275, 0.40821073],"
                    " 'image_processor_type': 'CLIPImageProcessor', 'image_std': [0.26862954, 0.26130258, 0.27577711], 'resample': 3,"
                    " 'rescale_factor': 0.00392156862745098, 'size': {'shortest_edge': 336}}",
                    "{'image_token': '<image>', 'patch_size': 14, 'processor_class': 'LlavaProcessor'}", &c, &error),
        &error);
    expect("LLaVA", c.family == IMAGE_LLAVA && c.filter == IMAGE_BICUBIC && c.tile == 336 && c.patch == 14 && c.shortest_edge == 336 &&
                        !c.pad_square && c.shuffle == 1 && c.mean[1] == 0.4578275 && c.std[2] == 0.27577711 &&
                        fabs(c.rescale * 255 - 1) < 1e-12);
    // CLIP's oldest: sizes as single numbers.
    tiny_need(read_config(LLAVA, "{'crop_size': 336, 'size': 336, 'resample': 2, 'image_mean': 0.5, 'image_std': [0.25, 0.5, 1]}", NULL, &c,
                          &error),
              &error);
    expect("old LLaVA", c.filter == IMAGE_BILINEAR && c.tile == 336 && c.shortest_edge == 336 && c.mean[0] == 0.5 && c.mean[2] == 0.5 &&
                            c.std[0] == 0.25);
    tiny_need(read_config(LLAVA, "{'do_center_crop': false, 'size': {'height': 336, 'width': 336}}", NULL, &c, &error), &error);
    expect("LLaVA without a cut", c.tile == 336 && c.shortest_edge == 0);
    tiny_need(read_config(
                  LLAVA, NULL,
                  "{'image_processor': {'image_processor_type': 'LlavaImageProcessorFast', 'do_pad': true, 'size': {'shortest_edge': 384},"
                  " 'crop_size': {'height': 336, 'width': 336}}, 'patch_size': 14}",
                  &c, &error),
              &error);
    expect("padded LLaVA", c.pad_square && c.shortest_edge == 384 && c.tile == 336);
    tiny_need(read_config(NEXT, NULL,
                          "{'image_processor': {'size': {'shortest_edge': 336}, 'crop_size': {'height': 336, 'width': 336},"
                          " 'image_grid_pinpoints': [[336, 672], [672, 336], [1008, 336]]}}",
                          &c, &error),
              &error);
    expect("LLaVA-NeXT", c.family == IMAGE_LLAVA_NEXT && c.pinpoint_count == 3 && c.pinpoints[2][0] == 1008 && c.pinpoints[1][1] == 336);
    tiny_need(read_config(NEXT, "{'size': {'shortest_edge': 336}, 'crop_size': {'height': 336, 'width': 336}}", NULL, &c, &error), &error);
    expect("pinpoints of config.json", c.pinpoint_count == 2 && c.pinpoints[1][0] == 672);
    tiny_need(
        read_config(SMOLVLM,
                    "{'max_image_size': {'longest_edge': 512}, 'size': {'longest_edge': 2048}, 'resample': 1, 'do_image_splitting': true}",
                    NULL, &c, &error),
        &error);
    expect("SmolVLM", c.family == IMAGE_IDEFICS3 && c.filter == IMAGE_LANCZOS && c.tile == 512 && c.patch == 16 && c.shuffle == 4 &&
                          c.longest_edge == 2048 && c.split && c.mean[1] == 0.5 && c.std[1] == 0.5);
}

#define CLIP "'size': {'shortest_edge': 336}, 'crop_size': 336"

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *preprocessor, *processor;
        zs_status status;
        const char *part;
    } cases[] = {
        {NULL, "{}", NULL, ZS_ERROR_IO, "config.json"},
        {LLAVA, NULL, NULL, ZS_ERROR_IO, "neither preprocessor_config.json"},
        {LLAVA, NULL, "{'patch_size': 14}", ZS_ERROR_IO, "neither preprocessor_config.json"},
        {LLAVA, "[]", NULL, ZS_ERROR_FORMAT, "no JSON object"},
        {LLAVA, "{", NULL, ZS_ERROR_FORMAT, "preprocessor_config.json"},
        {"{'model_type': 'llama'}", "{" CLIP "}", NULL, ZS_ERROR_UNSUPPORTED, "model_type llama"},
        {"{}", "{" CLIP "}", NULL, ZS_ERROR_UNSUPPORTED, "model_type (none)"},
        {LLAVA, "{" CLIP ", 'do_resize': false}", NULL, ZS_ERROR_UNSUPPORTED, "do_resize false"},
        {LLAVA, "{" CLIP ", 'do_rescale': false}", NULL, ZS_ERROR_UNSUPPORTED, "do_rescale false"},
        {LLAVA, "{" CLIP ", 'do_normalize': false}", NULL, ZS_ERROR_UNSUPPORTED, "do_normalize false"},
        {LLAVA, "{" CLIP ", 'do_center_crop': false}", NULL, ZS_ERROR_UNSUPPORTED, "do_center_crop false"},
        {LLAVA, "{" CLIP ", 'resample': 5}", NULL, ZS_ERROR_UNSUPPORTED, "filter 5"},
        {LLAVA, "{" CLIP ", 'resample': 0}", NULL, ZS_ERROR_FORMAT, "resample"},
        {LLAVA, "{" CLIP ", 'resample': 'cubic'}", NULL, ZS_ERROR_FORMAT, "resample"},
        {LLAVA, "{'size': {'longest_edge': 336}}", NULL, ZS_ERROR_UNSUPPORTED, "neither shortest_edge"},
        {LLAVA, "{'size': {'height': 336, 'width': 300}}", NULL, ZS_ERROR_UNSUPPORTED, "size is no square"},
        {LLAVA, "{'size': {'height': 336, 'width': 336}, 'crop_size': 224}", NULL, ZS_ERROR_UNSUPPORTED, "crop_size"},
        {LLAVA, "{'size': 224, 'crop_size': 336}", NULL, ZS_ERROR_FORMAT, "cut out larger"},
        {LLAVA, "{'size': -336, 'crop_size': 336}", NULL, ZS_ERROR_FORMAT, "size is no number"},
        {LLAVA, "{'size': 1e3, 'crop_size': 336}", NULL, ZS_ERROR_FORMAT, "size is no number"},
        {LLAVA, "{'size': 99999999999, 'crop_size': 336}", NULL, ZS_ERROR_FORMAT, "size is no number"},
        {LLAVA, "{'size': 448, 'crop_size': 448}", NULL, ZS_ERROR_UNSUPPORTED,
         "tiles of 448 pixels, but the tower of config.json takes 336"},
        {LLAVA, "{" CLIP ", 'image_mean': [1, 2]}", NULL, ZS_ERROR_FORMAT, "image_mean"},
        {LLAVA, "{" CLIP ", 'image_std': [1, 2, 0]}", NULL, ZS_ERROR_FORMAT, "deviation"},
        {LLAVA, "{" CLIP ", 'image_std': [1, 2, '3']}", NULL, ZS_ERROR_FORMAT, "image_std"},
        {LLAVA, "{" CLIP ", 'rescale_factor': 0}", NULL, ZS_ERROR_FORMAT, "factor of pixels"},
        {LLAVA, "{" CLIP ", 'rescale_factor': 1e-310}", NULL, ZS_ERROR_FORMAT, "factor of pixels"},
        {"{'model_type': 'llava'}", "{" CLIP "}", NULL, ZS_ERROR_FORMAT, "size of patches"},
        {"{'model_type': 'llava', 'vision_config': {'patch_size': 400}}", "{" CLIP "}", NULL, ZS_ERROR_FORMAT, "size of patches"},
        {NEXT, "{'size': {'shortest_edge': 384}, 'crop_size': 336}", NULL, ZS_ERROR_UNSUPPORTED, "crop_size"},
        {NEXT, "{" CLIP ", 'image_grid_pinpoints': []}", NULL, ZS_ERROR_FORMAT, "image_grid_pinpoints are missing"},
        {NEXT, "{" CLIP ", 'image_grid_pinpoints': [[336, 500]]}", NULL, ZS_ERROR_FORMAT, "image_grid_pinpoints[0]"},
        {NEXT, "{" CLIP ", 'image_grid_pinpoints': [[336]]}", NULL, ZS_ERROR_FORMAT, "image_grid_pinpoints"},
        {NEXT, "{" CLIP ", 'image_grid_pinpoints': [[336, 33600]]}", NULL, ZS_ERROR_FORMAT, "image_grid_pinpoints"},
        {SMOLVLM, "{'size': {'shortest_edge': 336}}", NULL, ZS_ERROR_UNSUPPORTED, "longest_edge"},
        {SMOLVLM, "{'size': 5}", NULL, ZS_ERROR_UNSUPPORTED, "longest_edge"},
        {SMOLVLM, "{'size': {'longest_edge': 0}}", NULL, ZS_ERROR_FORMAT, "longest_edge"},
        {"{'model_type': 'idefics3', 'scale_factor': 5, 'vision_config': {'patch_size': 16}}", "{'max_image_size': {'longest_edge': 512}}",
         NULL, ZS_ERROR_FORMAT, "pixel shuffle"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image_config c = {.tile = 7};
        zs_error error = {0};
        zs_status status = read_config(cases[i].config, cases[i].preprocessor, cases[i].processor, &c, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("case %zu: status %d instead of %d, \"%s\"", i, (int)status, (int)cases[i].status, error.message);
        assert_int_equal(c.tile, 7);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layouts), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
