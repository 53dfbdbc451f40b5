import io.undertow.Handlers;
import io.undertow.Undertow;
import io.undertow.UndertowOptions;
import io.undertow.server.HttpHandler;
import io.undertow.server.HttpServerExchange;
import io.undertow.server.handlers.BlockingHandler;
import io.undertow.server.handlers.HttpContinueReadHandler;
import io.undertow.server.protocol.http2.Http2UpgradeHandler;
import io.undertow.util.HeaderValues;
import io.undertow.util.Headers;
import io.undertow.websockets.core.AbstractReceiveListener;
import io.undertow.websockets.core.BufferedTextMessage;
import io.undertow.websockets.core.WebSocketChannel;
import io.undertow.websockets.core.WebSockets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.StringJoiner;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.regex.Pattern;

/** The app of the end-to-end tests on Undertow, which takes an upgrade to h2c. */
public class App {
  static final String SUBJECT = "X-Auth-Subject";
  static final List<String> asked = new CopyOnWriteArrayList<>();

  public static void main(String[] args) {
    HttpHandler socket = Handlers.websocket((http, channel) -> {
      channel.getReceiveSetter().set(new AbstractReceiveListener() {
        @Override
        protected void onFullTextMessage(WebSocketChannel from, BufferedTextMessage message) {
          WebSockets.sendText(message.getData(), from, null);
        }
      });
      channel.resumeReceives();
      WebSockets.sendText("hello " + http.getRequestHeader(SUBJECT), channel, null);
    });
    HttpHandler stream = Handlers.serverSentEvents((connection, last) ->
        connection.send("hello " + connection.getRequestHeaders().getFirst(SUBJECT)));
    HttpHandler all = Handlers.path(new HttpContinueReadHandler(new BlockingHandler(App::answer)))
        .addExactPath("/socket", socket)
        .addExactPath("/stream", stream)
        .addExactPath("/asked", exchange -> exchange.getResponseSender().send(String.join("\n", asked)));
    Undertow.builder()
        .setServerOption(UndertowOptions.ENABLE_HTTP2, true)
        .addHttpListener(Integer.parseInt(args[0]), "127.0.0.1", new Http2UpgradeHandler(all))
        .build()
        .start();
  }

  static void answer(HttpServerExchange exchange) throws Exception {
    asked.add(exchange.getRequestPath() + " " + Objects.toString(exchange.getRequestHeaders().getFirst(SUBJECT), ""));
    byte[] sum = MessageDigest.getInstance("SHA-256").digest(exchange.getInputStream().readAllBytes());
    StringJoiner headers = new StringJoiner(",", "{", "}");
    for (HeaderValues header : exchange.getRequestHeaders()) {
      StringJoiner values = new StringJoiner(",", "[", "]");
      header.forEach(value -> values.add(quote(value)));
      String name = Pattern.compile("(^|-)[a-z]").matcher(header.getHeaderName().toString())
          .replaceAll(first -> first.group().toUpperCase(Locale.ROOT));
      headers.add(quote(name) + ":" + values);
    }
    exchange.getResponseHeaders().put(Headers.CONTENT_TYPE, "application/json");
    exchange.getResponseSender().send("{\"Path\":" + quote(exchange.getRequestPath()) + ",\"Header\":" + headers
        + ",\"Sum\":" + quote(HexFormat.of().formatHex(sum)) + "}");
  }

  static String quote(String s) {
    return '"' + s.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
  }
}
