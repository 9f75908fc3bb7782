/*
 * The only program of the live guest that tests and measurements migrate: it writes pages of real files
 * (or of made-up words, without any) at a rate, knows what each of them must hold, and says so once a second on the console:
 *
 *     ferry count=12 written=5120 bad=0 checked=16384
 *
 * count goes up by one a second while the guest runs; bad is the number of pages, so far, that did not
 * hold what was written last. Arguments: MiB of memory, MiB to write a second, a file to take pages from.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, CHECKED_A_SECOND = 16384, WORDS = 4096 };

static char words[WORDS][12];
static char *files;
static uint64_t files_size;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Skewed, as words of a language are: a third of them come from the 64 most frequent. */
static void make_words(void)
{
    for (int i = 0; i < WORDS; i++) {
        uint64_t r = mix(i);
        int length = 2 + (i > 64) * 2 + r % 6;
        for (int k = 0; k < length; k++)
            words[i][k] = "etaoinshrdlucmfwypvbgk"[mix(r + k) % 22];
        words[i][length] = ' ';
    }
}

/* What a page holds: its number and version, then what follows from both. */
static void make_page(char *page, uint64_t number, uint64_t version)
{
    uint64_t r = mix(number * 2654435761u + version);
    int at = 16;
    memcpy(page, &number, 8);
    memcpy(page + 8, &version, 8);
    if (files_size > PAGE) {
        memcpy(page + at, files + r % (files_size - PAGE), PAGE - at);
        return;
    }
    while (at < PAGE) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t pick = r >> 33;
        const char *word = words[pick % 3 ? pick % WORDS : pick % 64];
        int length = (int)strlen(word);
        if (length > PAGE - at)
            length = PAGE - at;
        memcpy(page + at, word, length);
        at += length;
    }
}

static void read_files(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        return;
    long size = ftell(file);
    files = size > 0 ? malloc(size) : NULL;
    rewind(file);
    if (files != NULL && fread(files, 1, size, file) == (size_t)size)
        files_size = size;
    fclose(file);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    uint64_t pages = (argc > 1 ? atoll(argv[1]) : 64) * 256;
    double rate = (argc > 2 ? atof(argv[2]) : 20) * 256;
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *versions = calloc(pages, sizeof *versions);
    if (memory == MAP_FAILED || versions == NULL || pages == 0) {
        puts("ferry no memory");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_words();
    if (argc > 3)
        read_files(argv[3]);
    for (uint64_t i = 0; i < pages; i++)
        make_page(memory + i * PAGE, i, 0);
    puts("ferry ready");

    static char expected[PAGE];
    uint64_t next = 0, check = 0, written = 0, checked = 0, bad = 0, count = 0;
    double began = now(), owed_from = began;
    uint64_t owed_written = 0;
    for (;;) {
        for (int burst = 0; burst < 64 && owed_written < (now() - owed_from) * rate; burst++) {
            uint64_t page = mix(next++) % pages;
            make_page(memory + page * PAGE, page, ++versions[page]);
            owed_written++;
            written++;
        }
        /* What could not be written in time is not made up for: the guest stood still, or is slow. */
        if (owed_written < (now() - owed_from) * rate - rate / 4) {
            owed_from = now();
            owed_written = 0;
        }
        struct timespec nap = {0, 2000000};
        nanosleep(&nap, NULL);
        if (now() - began < count + 1)
            continue;
        if (now() - began > count + 3)
            began = now() - (count + 1);
        uint64_t some = pages < CHECKED_A_SECOND ? pages : CHECKED_A_SECOND;
        for (uint64_t k = 0; k < some / 8; k++, check = (check + 1) % pages, checked++) {
            make_page(expected, check, versions[check]);
            bad += memcmp(expected, memory + check * PAGE, PAGE) != 0;
        }
        printf("ferry count=%llu written=%llu bad=%llu checked=%llu\n", (unsigned long long)++count,
               (unsigned long long)written, (unsigned long long)bad, (unsigned long long)checked);
    }
}
