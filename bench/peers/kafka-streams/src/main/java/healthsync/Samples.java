package healthsync;

import java.util.Arrays;

/**
 * One {@code SamplesRecord} of cloud/records.py, read from msgpack into arrays that are used again.
 *
 * <p>Reads what the bench writes: every reading has a value and every status is OK. Anything else is
 * an IllegalArgumentException: the numbers of a run that met it would be of another job.
 */
final class Samples {
  byte[] edge;
  byte[] epoch;
  long seq;
  long floor;
  long ingestedMs;
  int sources;
  byte[][] device = new byte[8][];
  byte[][] subject = new byte[8][];
  int rows;
  int[] source = new int[64];
  int[] vital = new int[64];
  int[] value = new int[64];
  long[] time = new long[64];

  private byte[] in;
  private int at;

  void read(byte[] record) {
    in = record;
    at = 0;
    for (int left = map(); left > 0; left--) {
      int name = at;
      skip();
      switch (length(name)) {
        case 3 -> seq = integer(); // seq
        case 4 -> edge = text(); // edge
        case 5 -> { // epoch or floor
          if (in[name + 1] == 'e') {
            epoch = text();
          } else {
            floor = integer();
          }
        }
        case 7 -> columns(); // columns
        case 11 -> ingestedMs = integer(); // ingested_ms
        default -> skip(); // frame_readings
      }
    }
  }

  private void columns() {
    for (int left = map(); left > 0; left--) {
      int name = at;
      skip();
      int length = length(name);
      char first = (char) in[name + 1];
      if (length == 7 && first == 's') {
        sources();
      } else if (length == 6 && first == 's' && in[name + 2] == 'o') {
        rows = array();
        grow();
        ints(source);
      } else if (length == 5 && first == 'v' && in[name + 2] == 'i') {
        array();
        ints(vital);
      } else if (length == 5 && first == 'v') {
        array();
        ints(value);
      } else if (length == 4 && first == 't') {
        array();
        long sum = 0;
        for (int row = 0; row < rows; row++) {
          sum += integer();
          time[row] = sum;
        }
      } else if (length == 8 && first == 'r') {
        skip(); // received: the job does not ask for it
      } else {
        throw new IllegalArgumentException("a column that the bench does not write");
      }
    }
  }

  private void sources() {
    sources = array();
    if (sources > device.length) {
      device = Arrays.copyOf(device, 2 * sources);
      subject = Arrays.copyOf(subject, 2 * sources);
    }
    for (int one = 0; one < sources; one++) {
      for (int left = map(); left > 0; left--) {
        char first = (char) in[at + 1];
        skip();
        if (first == 'd') {
          device[one] = text();
        } else {
          subject[one] = text();
        }
      }
    }
  }

  private void grow() {
    if (rows > source.length) {
      source = new int[2 * rows];
      vital = new int[2 * rows];
      value = new int[2 * rows];
      time = new long[2 * rows];
    }
  }

  private void ints(int[] out) {
    for (int row = 0; row < rows; row++) {
      out[row] = (int) integer();
    }
  }

  // -- msgpack ---------------------------------------------------------------------------------

  private int length(int name) {
    return in[name] & 0x1f; // every name is a fixstr
  }

  private int map() {
    int head = in[at++] & 0xff;
    if (head >>> 4 == 8) {
      return head & 0xf;
    }
    if (head == 0xde) {
      return (int) big(2);
    }
    throw new IllegalArgumentException("no map");
  }

  private int array() {
    int head = in[at++] & 0xff;
    if (head >>> 4 == 9) {
      return head & 0xf;
    }
    if (head == 0xdc) {
      return (int) big(2);
    }
    if (head == 0xdd) {
      return (int) big(4);
    }
    throw new IllegalArgumentException("no array");
  }

  private byte[] text() {
    int head = in[at++] & 0xff;
    int length;
    if (head >>> 5 == 5) {
      length = head & 0x1f;
    } else if (head == 0xd9) {
      length = (int) big(1);
    } else {
      throw new IllegalArgumentException("no text");
    }
    at += length;
    return Arrays.copyOfRange(in, at - length, at);
  }

  private long big(int bytes) {
    long out = 0;
    for (int one = 0; one < bytes; one++) {
      out = out << 8 | in[at++] & 0xff;
    }
    return out;
  }

  private long integer() {
    int head = in[at++];
    if (head >= -32) {
      return head; // positive and negative fixint
    }
    return switch (head & 0xff) {
      case 0xcc -> big(1);
      case 0xcd -> big(2);
      case 0xce -> big(4);
      case 0xcf, 0xd3 -> big(8);
      case 0xd0 -> (byte) big(1);
      case 0xd1 -> (short) big(2);
      case 0xd2 -> (int) big(4);
      default -> throw new IllegalArgumentException("no integer");
    };
  }

  private void skip() {
    int head = in[at] & 0xff;
    if (head < 0x80 || head >= 0xe0 || head == 0xc0) {
      at++;
    } else if (head >>> 5 == 5) {
      at += 1 + (head & 0x1f);
    } else if (head >>> 4 == 9 || head == 0xdc || head == 0xdd) {
      for (int left = array(); left > 0; left--) {
        skip();
      }
    } else if (head == 0xd9) {
      at += 2 + (in[at + 1] & 0xff);
    } else {
      integer();
    }
  }
}
