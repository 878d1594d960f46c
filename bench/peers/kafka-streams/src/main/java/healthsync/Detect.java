package healthsync;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The job: frames once, five Observations a sample, two limits a subject.
 *
 * <p>Stores: {@code frames} has (edge, epoch) -> floor and the seqs seen above it; {@code subjects}
 * has a subject's 16 bytes -> its conditions (see Rule).
 */
final class Detect implements Processor<byte[], byte[], byte[], byte[]> {
  static final String FRAMES = "frames";
  static final String SUBJECTS = "subjects";
  private static final Rule[] RULES = {
    new Rule("heart_rate.high", "HR", 0, false, 130, 125, "medium"),
    new Rule("spo2.low", "SpO2", 2, true, 90, 91, "high"),
  };

  private final Samples samples = new Samples();
  private final Bundles bundles;
  private ProcessorContext<byte[], byte[]> context;
  private KeyValueStore<byte[], byte[]> frames;
  private KeyValueStore<byte[], byte[]> subjects;

  Detect(Bundles bundles) {
    this.bundles = bundles;
  }

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    this.context = context;
    frames = context.getStateStore(FRAMES);
    subjects = context.getStateStore(SUBJECTS);
  }

  @Override
  public void process(Record<byte[], byte[]> record) {
    samples.read(record.value());
    if (seen()) {
      return;
    }
    for (int source = 0; source < samples.sources; source++) {
      take(source, record.timestamp());
    }
  }

  private void take(int source, long timestamp) {
    byte[] subject = samples.subject[source];
    byte[] key = key(subject);
    byte[] stored = subjects.get(key);
    byte[] after =
        stored == null ? new byte[RULES.length * Rule.BYTES] : Arrays.copyOf(stored, stored.length);
    ByteBuffer state = ByteBuffer.wrap(after);
    bundles.begin(subject, samples.device[source]);
    for (int row = 0; row < samples.rows; row++) {
      if (samples.source[row] != source) {
        continue;
      }
      int vital = samples.vital[row];
      int value = samples.value[row];
      long time = samples.time[row];
      bundles.add(vital, value, time);
      for (int rule = 0; rule < RULES.length; rule++) {
        if (RULES[rule].vital() == vital) {
          byte[] alert =
              RULES[rule].step(state, rule * Rule.BYTES, subject, value, time, samples.ingestedMs);
          if (alert != null) {
            context.forward(new Record<>(alertKey(subject, alert), alert, timestamp), "alerts");
          }
        }
      }
    }
    context.forward(new Record<>(subject, bundles.end(), timestamp), "fhir");
    if (!Arrays.equals(after, stored)) {
      subjects.put(key, after);
    }
  }

  /** Tells whether this frame came before, and remembers it. */
  private boolean seen() {
    byte[] key = new byte[samples.edge.length + 1 + samples.epoch.length];
    System.arraycopy(samples.edge, 0, key, 0, samples.edge.length);
    key[samples.edge.length] = '/';
    System.arraycopy(
        samples.epoch, 0, key, samples.edge.length + 1, samples.epoch.length);
    byte[] stored = frames.get(key);
    ByteBuffer before = ByteBuffer.wrap(stored == null ? new byte[Long.BYTES] : stored);
    long floor = Math.max(before.getLong(), samples.floor);
    ByteBuffer after = ByteBuffer.allocate(before.capacity() + Long.BYTES).putLong(floor);
    boolean known = samples.seq < before.getLong(0);
    while (before.hasRemaining()) {
      long one = before.getLong();
      known |= one == samples.seq;
      if (one >= floor) {
        after.putLong(one);
      }
    }
    if (known) {
      return true;
    }
    if (samples.seq >= floor) {
      after.putLong(samples.seq);
    }
    frames.put(key, Arrays.copyOf(after.array(), after.position()));
    return false;
  }

  private static byte[] key(byte[] hex) {
    byte[] out = new byte[hex.length / 2];
    for (int one = 0; one < out.length; one++) {
      out[one] = (byte) (digit(hex[2 * one]) << 4 | digit(hex[2 * one + 1]));
    }
    return out;
  }

  private static int digit(byte hex) {
    return hex <= '9' ? hex - '0' : hex - 'a' + 10;
  }

  private static byte[] alertKey(byte[] subject, byte[] alert) {
    // {"episode":"<32 hex digits>"
    String episode = new String(alert, 12, 32, StandardCharsets.US_ASCII);
    return (new String(subject, StandardCharsets.US_ASCII) + "/" + episode)
        .getBytes(StandardCharsets.US_ASCII);
  }
}
