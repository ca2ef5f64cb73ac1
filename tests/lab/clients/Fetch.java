import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Fetch one URL, trusting one CA file: prints the status and the body, or the error and exits 1. */
final class Fetch {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = Files.newInputStream(Path.of(arguments[0]))) {
            var certificate = CertificateFactory.getInstance("X.509").generateCertificate(file);
            store.setCertificateEntry("lab", certificate);
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        var timeout = Duration.ofSeconds(15);
        HttpClient client = HttpClient.newBuilder().sslContext(context).connectTimeout(timeout).build();
        var request = HttpRequest.newBuilder(URI.create(arguments[1])).timeout(timeout).build();
        try {
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode());
            System.out.print(response.body());
        } catch (java.io.IOException error) {
            System.err.println(error);
            System.exit(1);
        }
    }
}
