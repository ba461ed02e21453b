// gRPC C++: `client TARGET CASE [AUTHORITY]`, as cases.py says.
#include <atomic>
#include <chrono>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/grpcpp.h>

#include "health.grpc.pb.h"
#include "netutil/v1alpha/netutil.grpc.pb.h"

namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr int kMany = 1000;
constexpr int kUploads = 100;
constexpr int kTooLarge = 10;
constexpr milliseconds kDeadline{200};
constexpr milliseconds kTimeout{30000};
constexpr milliseconds kWatched{9000};

// A JSON object, member by member.
class Result {
 public:
  Result &text(const std::string &name, const std::string &value) {
    std::ostringstream out;
    out << std::quoted(value);
    return raw(name, out.str());
  }
  Result &number(const std::string &name, long value) { return raw(name, std::to_string(value)); }
  Result &raw(const std::string &name, const std::string &json) {
    members_ += (members_.empty() ? "\"" : ", \"") + name + "\": " + json;
    return *this;
  }
  std::string json() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

template <class Values>
std::string list(const Values &values) {
  std::ostringstream out;
  const char *between = "";
  for (const auto &value : values) {
    out << between << value;
    between = ", ";
  }
  return "[" + out.str() + "]";
}

Result failure(const grpc::Status &status) {
  return Result().number("code", status.error_code()).text("message", status.error_message());
}

// How calls ended.
class Tally {
 public:
  void add(const grpc::Status &status) {
    const std::lock_guard<std::mutex> guard(mutex_);
    ++codes_[status.error_code()];
    if (!status.ok()) errors_.push_back(status.error_message());
  }
  std::string codes() const {
    Result found;
    for (const auto &one : codes_) found.number(std::to_string(one.first), one.second);
    return found.json();
  }
  std::string errors() const {
    std::vector<std::string> quoted;
    for (const auto &error : errors_) {
      std::ostringstream out;
      out << std::quoted(error);
      quoted.push_back(out.str());
    }
    return list(quoted);
  }

 private:
  std::mutex mutex_;
  std::map<int, long> codes_;
  std::vector<std::string> errors_;
};

using Trailers = std::multimap<grpc::string_ref, grpc::string_ref>;

std::string value_of(const Trailers &metadata, const std::string &name) {
  const auto found = metadata.find(name);
  return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
}

std::string echoed(const Trailers &metadata, const std::string &prefix) {
  std::ostringstream hex;
  for (const unsigned char c : value_of(metadata, prefix + "echo-bytes-bin")) {
    hex << std::hex << std::setw(2) << std::setfill('0') << static_cast<int>(c);
  }
  return Result()
      .text("text", value_of(metadata, prefix + "echo-text"))
      .text("bytes", hex.str())
      .json();
}

// Calls that are made at the same time.
template <class Response>
class AtOnce {
 public:
  template <class Start>
  void add(const Start &start) {
    calls_.emplace_back();
    auto &call = calls_.back();
    call.reader = start(&call.context, &queue_);
    call.reader->Finish(&call.response, &call.status, &call);
  }
  std::string codes() {
    Tally tally;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      void *tag = nullptr;
      bool ok = false;
      queue_.Next(&tag, &ok);
      tally.add(static_cast<Call *>(tag)->status);
    }
    return tally.codes();
  }

 private:
  struct Call {
    grpc::ClientContext context;
    Response response;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
  };
  grpc::CompletionQueue queue_;
  std::list<Call> calls_;
};

class Client {
 public:
  explicit Client(const std::shared_ptr<grpc::Channel> &channel)
      : agent_(v1alpha::NetUtil::NewStub(channel)),
        health_(grpc::health::v1::Health::NewStub(channel)) {}

  Result unary() {
    grpc::ClientContext context;
    v1alpha::PodResponse pod;
    const auto status = agent_->GetPod(&context, {}, &pod);
    if (!status.ok()) return failure(status);
    return Result().number("code", 0).text("name", pod.name());
  }

  Result error() {
    grpc::ClientContext context;
    v1alpha::EnvRequest request;
    request.set_key("NOT_SET");
    v1alpha::EnvResponse answer;
    const auto status = agent_->GetEnv(&context, request, &answer);
    google::rpc::Status details;
    google::rpc::ErrorInfo info;
    if (!details.ParseFromString(status.error_details()) || details.details().empty() ||
        !details.details(0).UnpackTo(&info)) {
      return failure(status);
    }
    return failure(status).text("reason", info.reason()).text("domain", info.domain());
  }

  Result large() {
    grpc::ClientContext context;
    v1alpha::EnvResponse answer;
    const auto status = agent_->GetEnv(&context, {}, &answer);
    if (!status.ok()) return failure(status);
    std::size_t size = 0;
    for (const auto &one : answer.envs()) size += one.first.size() + one.second.size();
    return Result().number("code", 0).number("bytes", static_cast<long>(size));
  }

  Result watch() {
    grpc::ClientContext context;
    v1alpha::WatchResponse snapshot;
    const auto reader = agent_->Watch(&context, {});
    reader->Read(&snapshot);
    context.TryCancel();
    return Result()
        .text("name", snapshot.snapshot().pod().name())
        .number("code", end(*reader))
        .number("then", pod());
  }

  Result keepalive() {
    grpc::ClientContext context;
    v1alpha::WatchResponse snapshot;
    const auto reader = agent_->Watch(&context, {});
    reader->Read(&snapshot);
    std::thread cancelling([&context] {
      std::this_thread::sleep_for(kWatched);
      context.TryCancel();
    });
    const auto code = end(*reader);
    cancelling.join();
    return Result().number("code", code).number("then", pod());
  }

  Result ended() {
    grpc::ClientContext context;
    v1alpha::WatchResponse snapshot;
    const auto reader = agent_->Watch(&context, {});
    reader->Read(&snapshot);
    std::cout << "watching" << std::endl;
    return Result().number("code", end(*reader));
  }

  Result many() {
    AtOnce<v1alpha::PodResponse> calls;
    for (int i = 0; i < kMany; ++i) {
      calls.add([this](auto *context, auto *queue) {
        return agent_->AsyncGetPod(context, {}, queue);
      });
    }
    return Result().raw("codes", calls.codes());
  }

  Result uploads() {
    AtOnce<v1alpha::EnvResponse> calls;
    for (int i = 0; i < kUploads + kTooLarge; ++i) {
      v1alpha::EnvRequest request;
      request.set_key(std::string(i < kUploads ? 60000 : 100000, 'k'));
      calls.add([&](auto *context, auto *queue) {
        return agent_->AsyncGetEnv(context, request, queue);
      });
    }
    const auto codes = calls.codes();
    return Result().raw("codes", codes).number("then", pod());
  }

  Result gzip() {
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    v1alpha::PodResponse pod;
    const auto status = agent_->GetPod(&context, {}, &pod);
    if (!status.ok()) return failure(status);
    const auto encoding = value_of(context.GetServerTrailingMetadata(), "request-encoding");
    return Result().number("code", 0).text("encoding", encoding);
  }

  Result deadline() {
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + kDeadline);
    const auto reader = agent_->Watch(&context, {});
    return Result().number("code", end(*reader));
  }

  Result metadata() {
    std::string bytes;
    for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
    grpc::ClientContext context;
    context.AddMetadata("echo-text", "a value");
    context.AddMetadata("echo-bytes-bin", bytes);
    v1alpha::PodResponse pod;
    const auto status = agent_->GetPod(&context, {}, &pod);
    if (!status.ok()) return failure(status);
    return Result()
        .number("code", 0)
        .raw("initial", echoed(context.GetServerInitialMetadata(), "initial-"))
        .raw("trailing", echoed(context.GetServerTrailingMetadata(), ""));
  }

  Result large_metadata() {
    const auto code = pod({{"large", std::string(9000, 'x')}});
    return Result().number("code", code).number("then", pod());
  }

  Result health() {
    std::vector<int> codes;
    std::vector<int> statuses;
    for (const char *service : {"", "v1alpha.NetUtil", "not.There"}) {
      grpc::ClientContext context;
      grpc::health::v1::HealthCheckRequest request;
      request.set_service(service);
      grpc::health::v1::HealthCheckResponse answer;
      const auto status = health_->Check(&context, request, &answer);
      codes.push_back(status.error_code());
      if (status.ok()) statuses.push_back(answer.status());
    }
    return Result().raw("codes", list(codes)).raw("statuses", list(statuses));
  }

  Result load(bool wait) {
    const auto prepare = [wait](grpc::ClientContext *context) {
      context->set_wait_for_ready(wait);
      context->set_deadline(system_clock::now() + kTimeout);
    };
    const auto slow = [this, prepare] {
      grpc::ClientContext context;
      prepare(&context);
      v1alpha::HugepagesResponse answer;
      return agent_->GetHugepages(&context, {}, &answer);
    };
    const auto pod = [this, prepare] {
      grpc::ClientContext context;
      prepare(&context);
      v1alpha::PodResponse answer;
      return agent_->GetPod(&context, {}, &answer);
    };
    const auto large = [this, prepare] {
      grpc::ClientContext context;
      prepare(&context);
      v1alpha::EnvResponse answer;
      return agent_->GetEnv(&context, {}, &answer);
    };
    Tally tally;
    std::atomic<bool> ended{false};
    std::vector<std::thread> workers;
    for (const std::function<grpc::Status()> &ask :
         std::vector<std::function<grpc::Status()>>{slow, large, pod, pod}) {
      tally.add(ask());
      workers.emplace_back([ask, &tally, &ended] {
        while (!ended) {
          std::this_thread::sleep_for(milliseconds(1));
          tally.add(ask());
        }
      });
    }
    std::cout << "calling" << std::endl;
    std::cin.ignore(std::numeric_limits<std::streamsize>::max());
    ended = true;
    for (auto &worker : workers) worker.join();
    return Result().raw("codes", tally.codes()).raw("errors", tally.errors());
  }

 private:
  // The code of a call.
  int pod(const std::map<std::string, std::string> &metadata = {}) {
    grpc::ClientContext context;
    for (const auto &one : metadata) context.AddMetadata(one.first, one.second);
    v1alpha::PodResponse pod;
    return agent_->GetPod(&context, {}, &pod).error_code();
  }

  static int end(grpc::ClientReader<v1alpha::WatchResponse> &reader) {
    v1alpha::WatchResponse snapshot;
    while (reader.Read(&snapshot)) {
    }
    return reader.Finish().error_code();
  }

  std::unique_ptr<v1alpha::NetUtil::Stub> agent_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace

int main(int count, char **words) {
  if (count < 3) {
    std::cerr << "usage: client TARGET CASE [AUTHORITY]\n";
    return 2;
  }
  grpc::ChannelArguments options;
  if (count > 3) options.SetString(GRPC_ARG_DEFAULT_AUTHORITY, words[3]);
  if (words[2] == std::string("keepalive")) {
    options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
    options.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  Client client(
      grpc::CreateCustomChannel(words[1], grpc::InsecureChannelCredentials(), options));
  const std::map<std::string, std::function<Result()>> cases = {
      {"unary", [&] { return client.unary(); }},
      {"error", [&] { return client.error(); }},
      {"large", [&] { return client.large(); }},
      {"uploads", [&] { return client.uploads(); }},
      {"watch", [&] { return client.watch(); }},
      {"ended", [&] { return client.ended(); }},
      {"keepalive", [&] { return client.keepalive(); }},
      {"many", [&] { return client.many(); }},
      {"gzip", [&] { return client.gzip(); }},
      {"deadline", [&] { return client.deadline(); }},
      {"metadata", [&] { return client.metadata(); }},
      {"large_metadata", [&] { return client.large_metadata(); }},
      {"health", [&] { return client.health(); }},
      {"load", [&] { return client.load(false); }},
      {"load_waiting", [&] { return client.load(true); }},
  };
  std::cout << cases.at(words[2])().json() << std::endl;
  return 0;
}
