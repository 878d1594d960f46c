package healthsync;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/**
 * One limit of one vital with delay and hysteresis: the state table of cloud/detect/README.md.
 *
 * <p>A condition of one subject is five longs in its state: last, began, raised, since, worst. A
 * reading older than the last one judged is not judged.
 */
record Rule(String name, String shown, int vital, boolean low, int limit, int clear, String priority) {
  static final int BYTES = 5 * Long.BYTES;
  private static final long DELAY_MS = 10_000;
  private static final long CLEAR_MS = 5_000;
  private static final long GAP_MS = 30_000;
  private static final long LATE_MS = 60_000;

  /** Takes a reading into {@code state} at {@code at}; returns an alert as JSON or null. */
  byte[] step(ByteBuffer state, int at, byte[] subject, int value, long time, long ingested) {
    long last = state.getLong(at);
    long began = state.getLong(at + 8);
    long raised = state.getLong(at + 16);
    long since = state.getLong(at + 24);
    long worst = state.getLong(at + 32);
    if (time < last) {
      return null;
    }
    boolean gap = last != 0 && time - last > GAP_MS;
    boolean breach = low ? value < limit : value > limit;
    String told = null;
    long ended = 0;
    if (raised == 0) {
      if (!breach) {
        began = 0;
        worst = 0;
      } else {
        if (began == 0 || gap) {
          began = time;
          worst = value;
        }
        worst = low ? Math.min(worst, value) : Math.max(worst, value);
        if (time - began >= DELAY_MS) {
          raised = time;
          told = "active";
        }
      }
    } else if (breach) {
      since = 0;
      if (low ? value < worst : value > worst) {
        worst = value;
        told = "active";
      }
    } else if (low ? value < clear : value > clear) {
      since = 0;
    } else {
      since = since == 0 || gap ? time : since;
      if (time - since >= CLEAR_MS) {
        told = "ended";
        ended = since;
      }
    }
    byte[] alert =
        told == null ? null : json(told, subject, time, ingested, began, raised, worst, ended);
    if (ended != 0) {
      began = 0;
      raised = 0;
      since = 0;
      worst = 0;
    }
    state.putLong(at, time).putLong(at + 8, began).putLong(at + 16, raised);
    state.putLong(at + 24, since).putLong(at + 32, worst);
    return alert;
  }

  private byte[] json(
      String state,
      byte[] subject,
      long time,
      long ingested,
      long began,
      long raised,
      long worst,
      long ended) {
    String who = new String(subject, StandardCharsets.US_ASCII);
    String named = "episode/1/" + who + "/threshold/" + name + "/0/" + began;
    String vitalName = name.substring(0, name.indexOf('.'));
    return ("{\"episode\":\""
            + sha256(named).substring(0, 32)
            + "\",\"subject\":\""
            + who
            + "\",\"kind\":\"threshold\",\"vital\":\""
            + vitalName
            + "\",\"priority\":\""
            + priority
            + "\",\"state\":\""
            + state
            + "\",\"text\":\""
            + (shown + " " + worst + (low ? "<" : ">") + limit)
            + "\",\"limit\":"
            + limit
            + ",\"worst\":"
            + worst
            + ",\"began_ms\":"
            + began
            + ",\"raised_ms\":"
            + raised
            + ",\"at_ms\":"
            + time
            + (ended == 0 ? "" : ",\"ended_ms\":" + ended)
            + (ingested - time > LATE_MS ? ",\"retrospective\":true" : "")
            + ",\"policy\":\"default-1\"}")
        .getBytes(StandardCharsets.UTF_8);
  }

  private static String sha256(String text) {
    try {
      var digest = MessageDigest.getInstance("SHA-256");
      return HexFormat.of().formatHex(digest.digest(text.getBytes(StandardCharsets.UTF_8)));
    } catch (NoSuchAlgorithmException error) {
      throw new IllegalStateException(error);
    }
  }
}
