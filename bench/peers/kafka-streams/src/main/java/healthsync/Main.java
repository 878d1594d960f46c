package healthsync;

import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StreamPartitioner;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.Stores;

/**
 * Runs the job until SIGTERM: {@code Main BOOTSTRAP GROUP STATE_DIR TEMPLATES [setting=value ...]}.
 *
 * <p>A setting is one of Kafka Streams or of its clients, or {@code store=memory}. Says each state
 * it comes to on stdout.
 */
public final class Main {
  private Main() {}

  public static void main(String[] args) {
    Map<String, String> more = new TreeMap<>();
    for (int at = 4; at < args.length; at++) {
      int sign = args[at].indexOf('=');
      more.put(args[at].substring(0, sign), args[at].substring(sign + 1));
    }
    boolean memory = "memory".equals(more.remove("store"));
    Properties settings = settings(args);
    settings.putAll(more);
    KafkaStreams streams = new KafkaStreams(topology(Path.of(args[3]), memory), settings);
    streams.setStateListener((after, before) -> System.out.println("state " + after));
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  private static Properties settings(String[] args) {
    Properties out = new Properties();
    out.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    out.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
    out.put(StreamsConfig.STATE_DIR_CONFIG, args[2]);
    out.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    out.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, "1");
    out.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "100");
    out.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, "67108864");
    out.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    out.put(StreamsConfig.producerPrefix("batch.size"), "524288");
    out.put(StreamsConfig.producerPrefix("buffer.memory"), "268435456");
    out.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    // As ours: a process that was killed has its partitions again at once.
    out.put(StreamsConfig.mainConsumerPrefix("group.instance.id"), args[1]);
    out.put(StreamsConfig.mainConsumerPrefix("session.timeout.ms"), "10000");
    return out;
  }

  private static Topology topology(Path templates, boolean memory) {
    StreamPartitioner<byte[], byte[]> bySubject =
        (topic, key, value, partitions) ->
            java.util.Optional.of(
                java.util.Set.of(
                    (int) (Long.parseLong(new String(key, 0, 8), 16) % partitions)));
    var bytes = Serdes.ByteArray();
    return new Topology()
        .addSource("samples", bytes.deserializer(), bytes.deserializer(), "samples")
        .addProcessor("detect", () -> new Detect(bundles(templates)), "samples")
        .addStateStore(
            Stores.keyValueStoreBuilder(supplier(Detect.FRAMES, memory), bytes, bytes)
                .withCachingEnabled(),
            "detect")
        .addStateStore(
            Stores.keyValueStoreBuilder(supplier(Detect.SUBJECTS, memory), bytes, bytes)
                .withCachingEnabled(),
            "detect")
        .addSink("fhir", "fhir", bytes.serializer(), bytes.serializer(), bySubject, "detect")
        .addSink("alerts", "alerts", bytes.serializer(), bytes.serializer(), bySubject, "detect");
  }

  private static KeyValueBytesStoreSupplier supplier(String name, boolean memory) {
    return memory ? Stores.inMemoryKeyValueStore(name) : Stores.persistentKeyValueStore(name);
  }

  private static Bundles bundles(Path file) {
    try {
      return new Bundles(file);
    } catch (java.io.IOException error) {
      throw new java.io.UncheckedIOException(error);
    }
  }
}
