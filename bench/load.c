/* The benchmark's client, server and spinner. C, because a load generator in Python would be the
 * bottleneck it is meant to find: one core of this must outrun one core of any proxy.
 *
 *   load serve ADDRESS PORT                      (several may share the port; any HELLO)
 *   load small|denied ADDRESS PORT HELLO COUNT CONCURRENCY
 *   load bulk  ADDRESS PORT HELLO CONNECTIONS BYTES_EACH
 *   load idle  ADDRESS PORT HELLO COUNT CONCURRENCY   (prints "ready", holds until stdin ends)
 *   load spin  FILE                              (counts in FILE with what the CPU has left)
 *
 * HELLO is a file with ClientHellos, one record each; connections take them in turn. One
 * transaction: connect, a hello, 2500 octets back, a request of 300 octets whose first one says what
 * is wanted, the answer, close. Results are one JSON line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_HEAD = 5, FLIGHT = 2500, REQUEST = 300, ANSWER = 500, CHUNK = 1 << 18, MAX_FD = 1 << 17 };

struct flow { uint64_t started, left; uint32_t got; uint8_t state; };
static struct flow flows[MAX_FD];
static char hellos[1 << 21], buffer[CHUNK];
static size_t hellos_length, next_hello;
static int epoll_fd;
static union { struct sockaddr any; struct sockaddr_in four; struct sockaddr_in6 six; } target;
static socklen_t target_length;

static void die(const char *what) { perror(what); exit(2); }

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void watch(int fd, uint32_t events, int op) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(epoll_fd, op, fd, &event)) die("epoll_ctl");
}

static void set_target(const char *address, const char *port) {
  if (strchr(address, ':')) {
    target.six.sin6_family = AF_INET6;
    target.six.sin6_port = htons((uint16_t)atoi(port));
    if (inet_pton(AF_INET6, address, &target.six.sin6_addr) != 1) die("address");
    target_length = sizeof target.six;
  } else {
    target.four.sin_family = AF_INET;
    target.four.sin_port = htons((uint16_t)atoi(port));
    if (inet_pton(AF_INET, address, &target.four.sin_addr) != 1) die("address");
    target_length = sizeof target.four;
  }
}

static size_t size_of_hello(size_t at) {
  const unsigned char *head = (const unsigned char *)hellos + at;
  return RECORD_HEAD + (size_t)(head[3] << 8 | head[4]);
}

static void read_hellos(const char *path) {
  FILE *file = fopen(path, "rb");
  size_t at = 0;
  if (!file) die(path);
  hellos_length = fread(hellos, 1, sizeof hellos - RECORD_HEAD, file);
  fclose(file);
  while (at < hellos_length) at += size_of_hello(at);
  if (at == 0 || at > hellos_length) { fprintf(stderr, "%s: not whole records\n", path); exit(2); }
}

static int say_hello(int fd) {
  size_t at = next_hello, size = size_of_hello(at);
  next_hello = (at + size) % hellos_length;
  return send(fd, hellos + at, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* ---- server ---- */

static void server_stream(int fd) {
  struct flow *flow = &flows[fd];
  while (flow->left) {
    size_t want = flow->left < CHUNK ? flow->left : CHUNK;
    ssize_t sent = send(fd, buffer, want, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) { watch(fd, EPOLLOUT, EPOLL_CTL_MOD); return; }
      close(fd);
      return;
    }
    flow->left -= (uint64_t)sent;
  }
  watch(fd, EPOLLIN, EPOLL_CTL_MOD);
}

static void server_read(int fd) {
  struct flow *flow = &flows[fd];
  ssize_t got = recv(fd, buffer, 4096, 0);
  if (got <= 0) { if (got == 0 || errno != EAGAIN) close(fd); return; }
  if (flow->got == 0 && flow->state == 0) {
    const unsigned char *head = (const unsigned char *)buffer;
    if (got < RECORD_HEAD) { close(fd); return; }
    flow->left = RECORD_HEAD + (uint64_t)(head[3] << 8 | head[4]);
  }
  flow->got += (uint32_t)got;
  if (flow->state == 0 && flow->got >= flow->left) {
    flow->got -= (uint32_t)flow->left;
    flow->left = 0;
    flow->state = 1;
    if (send(fd, buffer, FLIGHT, MSG_NOSIGNAL) != FLIGHT) { close(fd); return; }
  }
  if (flow->state == 1 && flow->got >= REQUEST) {
    const char *request = buffer + got - REQUEST;
    flow->state = 2;
    if (request[0] == 'S') flow->left = ANSWER;
    if (request[0] == 'B') memcpy(&flow->left, request + 8, 8);
    server_stream(fd);
  }
}

static void serve(void) {
  int on = 1, listener = socket(target.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (bind(listener, &target.any, target_length) || listen(listener, 65535)) die("listen");
  watch(listener, EPOLLIN, EPOLL_CTL_ADD);
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[512];
    int count = epoll_wait(epoll_fd, events, 512, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
          flows[fd] = (struct flow){0};
          watch(fd, EPOLLIN, EPOLL_CTL_ADD);
        }
      } else if (events[i].events & EPOLLOUT) server_stream(fd);
      else server_read(fd);
    }
  }
}

/* ---- client ---- */

static uint64_t planned, begun, done, failed, bulk_bytes, latencies_count;
static uint32_t *latencies;
static char mode;

static void begin(void) {
  int on = 1, fd = socket(target.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0 || fd >= MAX_FD) die("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  flows[fd] = (struct flow){.started = now_ns()};
  begun++;
  if (connect(fd, &target.any, target_length) && errno != EINPROGRESS) die("connect");
  watch(fd, EPOLLOUT, EPOLL_CTL_ADD);
}

static void end(int fd, int ok) {
  if (ok) latencies[latencies_count++] = (uint32_t)((now_ns() - flows[fd].started) / 1000);
  else failed++;
  close(fd);
  done++;
  if (begun < planned) begin();
}

static void ask(int fd) {
  char request[REQUEST] = {mode == 'I' ? 'I' : mode == 'B' ? 'B' : 'S'};
  memcpy(request + 8, &bulk_bytes, 8);
  if (send(fd, request, REQUEST, MSG_NOSIGNAL) != REQUEST) { end(fd, 0); return; }
  flows[fd].state = 2;
  flows[fd].left = mode == 'B' ? bulk_bytes : ANSWER;
  if (mode != 'I') return;
  done++;
  if (begun < planned) begin();
}

static void client_read(int fd) {
  struct flow *flow = &flows[fd];
  ssize_t got = recv(fd, buffer, CHUNK, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { end(fd, mode == 'D'); return; }
  if (mode == 'D') return;
  if (flow->state == 1) {
    flow->got += (uint32_t)got;
    if (flow->got >= FLIGHT) ask(fd);
  } else if ((flow->left -= (uint64_t)got) == 0) end(fd, 1);
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void report(uint64_t started) {
  double seconds = (double)(now_ns() - started) / 1e9;
  uint64_t count = latencies_count ? latencies_count : 1;
  qsort(latencies, latencies_count, sizeof *latencies, by_value);
  printf("{\"seconds\": %.6f, \"done\": %lu, \"failed\": %lu, \"p50_us\": %u, \"p99_us\": %u, "
         "\"bytes\": %lu}\n",
         seconds, (unsigned long)latencies_count, (unsigned long)failed,
         latencies[count / 2], latencies[count * 99 / 100],
         (unsigned long)(mode == 'B' ? bulk_bytes * latencies_count : 0));
}

static void load(uint64_t concurrency) {
  uint64_t started = now_ns();
  latencies = calloc(planned + 1, sizeof *latencies);
  for (uint64_t i = 0; i < concurrency && begun < planned; i++) begin();
  while (done < planned) {
    struct epoll_event events[512];
    int count = epoll_wait(epoll_fd, events, 512, 20000);
    if (count == 0) { fputs("no event for 20 s\n", stderr); exit(3); }
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (flows[fd].state) { client_read(fd); continue; }
      if (!say_hello(fd)) { end(fd, 0); continue; }
      flows[fd].state = 1;
      watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    }
  }
  if (mode == 'I') {
    puts("ready");
    fflush(stdout);
    while (read(0, buffer, sizeof buffer) > 0) {}
  } else report(started);
}

static void spin(const char *path) {
  struct sched_param none = {0};
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, 8)) die(path);
  volatile uint64_t *counter = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (counter == MAP_FAILED) die("mmap");
  if (sched_setscheduler(0, SCHED_IDLE, &none)) die("SCHED_IDLE");
  for (;;) (*counter)++;
}

int main(int argc, char **argv) {
  struct rlimit files;
  if (argc == 3 && !strcmp(argv[1], "spin")) spin(argv[2]);
  if (argc < 4) { fputs("see the head of load.c\n", stderr); return 2; }
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_IGN);
  epoll_fd = epoll_create1(0);
  set_target(argv[2], argv[3]);
  if (!strcmp(argv[1], "serve")) serve();
  if (argc < 7) { fputs("see the head of load.c\n", stderr); return 2; }
  read_hellos(argv[4]);
  mode = (char)(argv[1][0] & ~32);
  planned = strtoull(argv[5], NULL, 10);
  if (mode == 'B') bulk_bytes = strtoull(argv[6], NULL, 10);
  load(mode == 'B' ? planned : strtoull(argv[6], NULL, 10));
  return failed ? 1 : 0;
}
