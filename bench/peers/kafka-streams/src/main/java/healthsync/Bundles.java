package healthsync;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * Transaction Bundles, spliced from pieces of bytes.
 *
 * <p>The pieces come from the bench, cut from our own templates, so both write the same resources.
 * A line of the file: index of the vital, its name in ids, decimals, the lowest and highest value
 * it is for, the slots in order (i id, s subject, t time, d device, v value), and the pieces around
 * them. The first two lines are head and tail of a Bundle.
 */
final class Bundles {
  private record Template(int from, int to, char[] slots, byte[][] pieces) {}

  private static final byte[] DIGITS =
      "0123456789abcdefghijklmnopqrstuvwxyz".getBytes(StandardCharsets.US_ASCII);

  private final byte[] head;
  private final byte[] tail;
  private final Template[][] templates = new Template[32][];
  private final byte[][] names = new byte[32][];
  private final int[] decimals = new int[32];

  private byte[] out = new byte[1 << 20];
  private int at;
  private boolean any;
  private byte[] subject;
  private byte[] device;

  private long stampedMs = -1;
  private final byte[] stamp = new byte[16];
  private int stampAt;
  private long second = -1;
  private final byte[] instant = new byte[24];

  Bundles(Path file) throws IOException {
    var lines = Files.readAllLines(file, StandardCharsets.UTF_8);
    head = lines.get(0).getBytes(StandardCharsets.UTF_8);
    tail = lines.get(1).getBytes(StandardCharsets.UTF_8);
    for (String line : lines.subList(2, lines.size())) {
      String[] parts = line.split("\t", -1);
      int vital = Integer.parseInt(parts[0]);
      names[vital] = ("." + parts[1] + ".").getBytes(StandardCharsets.US_ASCII);
      decimals[vital] = Integer.parseInt(parts[2]);
      char[] slots = parts[5].toCharArray();
      byte[][] pieces = new byte[slots.length + 1][];
      for (int piece = 0; piece < pieces.length; piece++) {
        pieces[piece] = parts[6 + piece].getBytes(StandardCharsets.UTF_8);
      }
      Template[] before = templates[vital] == null ? new Template[0] : templates[vital];
      templates[vital] = Arrays.copyOf(before, before.length + 1);
      templates[vital][before.length] =
          new Template(Integer.parseInt(parts[3]), Integer.parseInt(parts[4]), slots, pieces);
    }
  }

  void begin(byte[] subject, byte[] device) {
    this.subject = subject;
    this.device = device;
    at = 0;
    any = false;
    put(head);
  }

  void add(int vital, int value, long timeMs) {
    if (out.length - at < 1 << 14) {
      out = Arrays.copyOf(out, 2 * out.length);
    }
    if (timeMs != stampedMs) {
      stamp(timeMs);
    }
    Template template = null;
    for (Template one : templates[vital]) {
      if (one.from <= value && value <= one.to) {
        template = one;
        break;
      }
    }
    byte[] name = names[vital];
    if (any) {
      out[at++] = ',';
    }
    any = true;
    byte[][] pieces = template.pieces;
    put(pieces[0]);
    for (int slot = 0; slot < template.slots.length; slot++) {
      switch (template.slots[slot]) {
        case 'i' -> id(name);
        case 's' -> put(subject);
        case 't' -> put(instant);
        case 'd' -> put(device);
        default -> number(value, decimals[vital]);
      }
      put(pieces[slot + 1]);
    }
  }

  byte[] end() {
    put(tail);
    return Arrays.copyOf(out, at);
  }

  private void put(byte[] bytes) {
    System.arraycopy(bytes, 0, out, at, bytes.length);
    at += bytes.length;
  }

  private void id(byte[] name) {
    put(subject);
    put(name);
    int length = stamp.length - stampAt;
    System.arraycopy(stamp, stampAt, out, at, length);
    at += length;
  }

  private void number(int value, int decimals) {
    if (value < 0 || decimals > 1) {
      throw new IllegalArgumentException("a value that the bench does not write");
    }
    int whole = decimals == 0 ? value : value / 10;
    if (whole >= 100) {
      out[at++] = (byte) ('0' + whole / 100);
    }
    if (whole >= 10) {
      out[at++] = (byte) ('0' + whole / 10 % 10);
    }
    out[at++] = (byte) ('0' + whole % 10);
    if (decimals == 1) {
      out[at++] = '.';
      out[at++] = (byte) ('0' + value % 10);
    }
  }

  private void stamp(long timeMs) {
    stampedMs = timeMs;
    stampAt = stamp.length;
    for (long left = timeMs; left > 0; left /= 36) {
      stamp[--stampAt] = DIGITS[(int) (left % 36)];
    }
    if (timeMs / 1000 != second) {
      second = timeMs / 1000;
      byte[] text =
          java.time.Instant.ofEpochSecond(second).toString().getBytes(StandardCharsets.US_ASCII);
      System.arraycopy(text, 0, instant, 0, 19);
    }
    int ms = (int) (timeMs % 1000);
    instant[19] = '.';
    instant[20] = (byte) ('0' + ms / 100);
    instant[21] = (byte) ('0' + ms / 10 % 10);
    instant[22] = (byte) ('0' + ms % 10);
    instant[23] = 'Z';
  }
}
