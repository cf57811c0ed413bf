package logguard.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts lines and errors per key (the service) in tumbling windows of 30 seconds of event time: a
 * small part of what LogGuard does with the same topic. Arguments: brokers, topic, application id,
 * state directory. Prints {@code records N} ten times a second.
 */
public final class WindowedCount {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final AtomicLong RECORDS = new AtomicLong();

  private WindowedCount() {}

  public static void main(String[] args) throws InterruptedException {
    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(args[1], Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .mapValues(WindowedCount::parse)
        .groupByKey(
            Grouped.with(Serdes.String(), new JsonSerde()))
        .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofSeconds(30), Duration.ofSeconds(2)))
        .aggregate(
            () -> new byte[16],
            (service, event, counts) -> count(event, counts),
            Materialized.<String, byte[]>as(
                    Stores.inMemoryWindowStore(
                        "counts", Duration.ofMinutes(2), Duration.ofSeconds(30), false))
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.ByteArray())
                .withLoggingDisabled());

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
              .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    streams.start();
    long last = 0;
    while (true) {
      long now = RECORDS.get();
      if (now != last) {
        System.out.println("records " + now);
        last = now;
      }
      Thread.sleep(100);
    }
  }

  private static JsonNode parse(byte[] payload) {
    RECORDS.incrementAndGet();
    try {
      JsonNode event = JSON.readTree(payload);
      // The window an event belongs to is found by its own time; Streams uses the record's, which
      // the producer has set to the same.
      Instant.parse(event.path("timestamp").asText());
      return event;
    } catch (IOException error) {
      throw new IllegalArgumentException("not JSON", error);
    }
  }

  /** Adds an event to two big-endian counters: lines, and lines of level ERROR or FATAL. */
  private static byte[] count(JsonNode event, byte[] counts) {
    ByteBuffer buffer = ByteBuffer.wrap(counts.clone());
    String level = event.path("level").asText();
    boolean critical = level.equals("ERROR") || level.equals("FATAL");
    buffer.putLong(0, buffer.getLong(0) + 1);
    buffer.putLong(8, buffer.getLong(8) + (critical ? 1 : 0));
    return buffer.array();
  }

  /** Never called: nothing is repartitioned, but the DSL asks for a serde. */
  private static final class JsonSerde
      extends org.apache.kafka.common.serialization.Serdes.WrapperSerde<JsonNode> {
    JsonSerde() {
      super(
          (topic, node) -> {
            throw new UnsupportedOperationException();
          },
          (topic, bytes) -> {
            throw new UnsupportedOperationException();
          });
    }
  }
}
